#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gemma/text/tokenizer.h>

namespace gemma {

/// What a text has to be.
struct GrammarSource {
  enum class Kind {
    kJsonSchema,  ///< JSON that a JSON Schema describes; see prepared_schema for what it may say.
    kRegex,       ///< A regular expression matches all of it.
    kEbnf,        ///< The rule `root` of a grammar in the notation of llama.cpp's GBNF.
  };
  Kind kind;
  std::string text;

  auto operator<=>(const GrammarSource&) const = default;
};

/// A grammar, ready for the tokens of one vocabulary. Copies share it.
class Grammar {
 public:
  /// Memory of it, in bytes.
  int64_t bytes() const;

 private:
  friend class GrammarCompiler;
  friend class GrammarState;
  struct Compiled;
  explicit Grammar(std::shared_ptr<const Compiled> compiled);
  std::shared_ptr<const Compiled> compiled_;
};

/// Makes grammars ready for a vocabulary, and keeps those of 64 MB that were used last. From any
/// threads, which wait for one another.
class GrammarCompiler {
 public:
  /// `vocab_size`: of the model, which may be larger than its tokenizer's. Throws
  /// std::invalid_argument in a build without xgrammar.
  GrammarCompiler(const Tokenizer& tokenizer, int64_t vocab_size);
  ~GrammarCompiler();

  /// Throws std::invalid_argument, one line: what is wrong with it, or that it is longer than 64
  /// KB, nested too deeply, or takes longer than 10 seconds.
  Grammar compile(const GrammarSource& source);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// How far a text has come in a grammar. A copy goes on by itself.
class GrammarState {
 public:
  /// `stop_ids`: the tokens that end the text, one at least. Control tokens and they spell nothing.
  GrammarState(const Grammar& grammar, std::span<const int64_t> stop_ids);
  GrammarState(const GrammarState& other);
  GrammarState(GrammarState&&) noexcept;
  GrammarState& operator=(const GrammarState& other);
  GrammarState& operator=(GrammarState&&) noexcept;
  ~GrammarState();

  /// The text goes on with a token -> false, and nothing changes, where it cannot. A stop id leaves
  /// everything as it is.
  bool accept(int64_t token);

  /// A bit for each token of the vocabulary, 1: the text can go on with it, or end by it. Until the
  /// next call of accept().
  std::span<const uint32_t> mask();

  /// Whether the text is complete, and cannot go on.
  bool is_over();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gemma
