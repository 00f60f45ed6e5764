/* SPDX-License-Identifier: Apache-2.0 */
/* libsentencepiece behind plain C. Nothing is thrown across: every failure is a text.
 *
 * The library decodes and checks the model (unknown piece, duplicates, empty pieces). Its own encoder is not used:
 * it sums scores in float32, which decides ties in long words otherwise than the reference's doubles do. */
#include "sentencepiece-shim.h"

#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include <sentencepiece_processor.h>

struct FkSentencePiece {
  sentencepiece::SentencePieceProcessor processor;
};

extern "C" FkSentencePiece *fk_sentencepiece_open(const void *data, size_t bytes, char **error) {
  try {
    auto model = std::make_unique<FkSentencePiece>();
    const auto status = model->processor.LoadFromSerializedProto(std::string(static_cast<const char *>(data), bytes));
    if (status.ok()) return model.release();
    *error = strdup(status.ToString().c_str());
  } catch (const std::exception &failure) {
    *error = strdup(failure.what());
  } catch (...) {
    *error = strdup("unknown failure in libsentencepiece");
  }
  return nullptr;
}

extern "C" void fk_sentencepiece_free(FkSentencePiece *model) {
  delete model;
}

extern "C" int fk_sentencepiece_count(const FkSentencePiece *model) {
  return model->processor.GetPieceSize();
}

extern "C" const char *fk_sentencepiece_piece(const FkSentencePiece *model, int id, size_t *bytes) {
  const std::string &piece = model->processor.IdToPiece(id);
  *bytes = piece.size();
  return piece.c_str();
}

extern "C" float fk_sentencepiece_score(const FkSentencePiece *model, int id) {
  return model->processor.GetScore(id);
}
