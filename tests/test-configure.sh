#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Options of the build, configured and not built, with an nvcc that only says where its toolkit is.
. "$(dirname "$0")/tap.sh"
mkdir -p bin toolkit/bin toolkit/include/nvtx3
: >toolkit/include/nvtx3/nvToolsExt.h
cat >bin/nvcc <<EOF
#!/bin/sh
echo '#\$ TOP=$scratch/toolkit/bin/..' >&2
EOF
chmod +x bin/nvcc
export PATH="$scratch/bin:$PATH"
unset CUDA_PATH CC CXX

# architectures FOLDER: what the module is compiled for, in one line.
architectures() { grep -o 'code=sm_[0-9a-z]*' "$1/build.ninja" | sort -u | sed 's/code=sm_//' | tr '\n' ' '; }

expect /configure/default meson setup default "$FK_SOURCE"
[ "$(architectures default)" = "100 80 89 90a " ]
check /configure/default/all-architectures $?
grep -q 'nvtx-record.so' default/build.ninja
check /configure/default/finds-nvtx-beside-nvcc $?
expect /configure/one-architecture meson setup one "$FK_SOURCE" -Dcuda-arch=90a
[ "$(architectures one)" = "90a " ]
check /configure/one-architecture/only-that $?
expect /configure/no-cuda meson setup none "$FK_SOURCE" -Dcuda=disabled
! grep -q 'kernels/fkcuda' none/build.ninja # tests/standin has one of its own
check /configure/no-cuda/no-module $?

done_testing
