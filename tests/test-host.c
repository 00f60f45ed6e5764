/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the host as files under a folder of the test's own state it: of a machine, within limits of control groups
 * of either version and of those above them; what is damaged or not there has no say. */
#include "host.h"
#include "test-files.h"

static char *root;

static void put(const char *name, const char *text) {
  g_autofree char *path = g_build_filename(root, name, NULL), *folder = g_path_get_dirname(path);
  g_assert_cmpint(g_mkdir_with_parents(folder, 0700), ==, 0);
  g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void check(size_t available, size_t total) {
  const FkHostMemory m = fk_host_memory(root);
  g_assert_cmpuint(m.available, ==, available);
  g_assert_cmpuint(m.total, ==, total);
}

static void machine(void) {
  const FkHostMemory real = fk_host_memory("");
  g_test_message("this machine: %zu of %zu", real.available, real.total);
  g_assert_cmpuint(real.available, >, 0);
  g_assert_cmpuint(real.available, <=, real.total);
  put("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  5 kB\nMemAvailable:    600 kB\nHugePages_Total:       0\n");
  check(600 * 1024, 1000 * 1024);
}

#define KB(n) ((n)*1024)

static void version_2(void) {
  put("proc/self/cgroup", "0::/user/job\n");
  check(KB(600), KB(1000)); /* no files */
  put("sys/fs/cgroup/user/job/memory.max", "max\n");
  put("sys/fs/cgroup/user/job/memory.current", "100000\n");
  check(KB(600), KB(1000));
  put("sys/fs/cgroup/user/job/memory.max", "512000\n");
  check(412000, 512000);
  put("sys/fs/cgroup/user/job/memory.stat",
      "anon 70000\nfile 40000\nkernel 1\nactive_file 10000\ninactive_file 20000\n");
  check(442000, 512000); /* cache gives way */
  put("sys/fs/cgroup/user/memory.max", "400000\n");
  put("sys/fs/cgroup/user/memory.current", "390000\n");
  check(10000, 400000); /* the one above has less */
  put("sys/fs/cgroup/memory.max", "300000\n");
  put("sys/fs/cgroup/memory.current", "310000\n");
  check(0, 300000); /* a container sees its own as the root */
  put("sys/fs/cgroup/memory.max", "garbage\n");
  put("sys/fs/cgroup/user/memory.max", "-1 x\n");
  put("sys/fs/cgroup/user/job/memory.current", "");
  check(KB(600), 512000);
}

static void version_1(void) {
  put("proc/self/cgroup", "9:name=systemd:/\n5:cpu,memory:/job\n4:memoryless:/other\nbroken\n0::/\n");
  put("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "200000\n");
  put("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "150000\n");
  put("sys/fs/cgroup/memory/job/memory.stat", "cache 1\ntotal_active_file 20000\ntotal_inactive_file 30000\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put("sys/fs/cgroup/memory/memory.usage_in_bytes", "150000\n");
  check(100000, 200000);
  put("proc/self/cgroup", "4:memory:/not/mounted/here\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "250000\n");
  check(100000, 250000); /* the mount's own */
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  root = scratch_path("root");
  g_test_add_func("/host/machine", machine);
  g_test_add_func("/host/version-2", version_2);
  g_test_add_func("/host/version-1", version_1);
  const int status = g_test_run();
  g_free(root);
  scratch_close();
  return status;
}
