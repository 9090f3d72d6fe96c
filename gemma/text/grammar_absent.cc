#include <stdexcept>

#include <gemma/text/grammar.h>

// For builds without xgrammar. No Grammar exists in them.
namespace gemma {

struct Grammar::Compiled {};
class GrammarCompiler::Impl {};
class GrammarState::Impl {};

Grammar::Grammar(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}
int64_t Grammar::bytes() const { return 0; }

GrammarCompiler::GrammarCompiler(const Tokenizer& /*tokenizer*/, int64_t /*vocab_size*/) {
  throw std::invalid_argument(
      "grammar: this build has no xgrammar, so texts cannot be held to a schema, a regular "
      "expression or a grammar; run scripts/bootstrap.sh and build again");
}
GrammarCompiler::~GrammarCompiler() = default;
Grammar GrammarCompiler::compile(const GrammarSource& /*source*/) { return Grammar(nullptr); }

GrammarState::GrammarState(const Grammar& /*grammar*/, std::span<const int64_t> /*stop_ids*/) {}
GrammarState::GrammarState(const GrammarState& /*other*/) {}
GrammarState::GrammarState(GrammarState&&) noexcept = default;
GrammarState& GrammarState::operator=(const GrammarState& /*other*/) { return *this; }
GrammarState& GrammarState::operator=(GrammarState&&) noexcept = default;
GrammarState::~GrammarState() = default;
bool GrammarState::accept(int64_t /*token*/) { return false; }
std::span<const uint32_t> GrammarState::mask() { return {}; }
bool GrammarState::is_over() { return false; }

}  // namespace gemma
