#include <algorithm>
#include <chrono>
#include <future>
#include <list>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <xgrammar/xgrammar.h>

#include <gemma/text/grammar.h>
#include <gemma/text/json_schema.h>

// What xgrammar would print, in a build that leaves it to others.
namespace xgrammar {
namespace {

// The first thing that xgrammar does not do as it was asked to, on this thread, since it was reset.
std::string& first_warning() {
  thread_local std::string warning;
  return warning;
}

constexpr int kWarning = 2;  // Its XGRAMMAR_LOG_LEVEL_WARNING.

}  // namespace

[[noreturn]] void LogFatalImpl(const std::string& /*file*/,
                               int /*line*/,
                               const std::string& message) {
  throw std::runtime_error(message);
}

void LogMessageImpl(const std::string& /*file*/,
                    int /*line*/,
                    int level,
                    const std::string& message) {
  if (level == kWarning && first_warning().empty()) first_warning() = message;
}

}  // namespace xgrammar

namespace gemma {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kDeadline = std::chrono::seconds(10);
constexpr int64_t kCacheBytes = 64 * 1024 * 1024;
constexpr size_t kMostBytes = 64 * 1024;
constexpr int kMostThreads = 4;
constexpr int kWordBits = 32;

const char* name_of(GrammarSource::Kind kind) {
  switch (kind) {
    case GrammarSource::Kind::kJsonSchema:
      return "JSON Schema";
    case GrammarSource::Kind::kRegex:
      return "regular expression";
    case GrammarSource::Kind::kEbnf:
      return "grammar";
  }
  return "";
}

[[noreturn]] void refuse(const GrammarSource& source, std::string_view why) {
  constexpr size_t kMost = 300;
  std::string line(why.substr(0, kMost));
  // It may show a part of a character, and several lines.
  std::ranges::replace_if(line, [](char c) { return c < ' ' || c > '~'; }, ' ');
  while (line.ends_with(' ')) line.pop_back();
  throw std::invalid_argument(fmt::format("{}: {}", name_of(source.kind), line));
}

xgrammar::Grammar parse(const GrammarSource& source) {
  switch (source.kind) {
    case GrammarSource::Kind::kJsonSchema:
      // On one line: where any blanks are allowed, small models say nothing else.
      return xgrammar::Grammar::FromJSONSchema(prepared_schema(source.text),
                                               /*any_whitespace=*/false, std::nullopt, std::nullopt,
                                               /*strict_mode=*/false);
    case GrammarSource::Kind::kRegex:
      return xgrammar::Grammar::FromRegex(source.text);
    case GrammarSource::Kind::kEbnf:
      return xgrammar::Grammar::FromEBNF(source.text);
  }
  throw std::logic_error("grammar: a kind that there is not");
}

using Words = std::vector<uint32_t>;

bool is_set(std::span<const uint32_t> words, int64_t bit) {
  return (words[static_cast<size_t>(bit / kWordBits)] >> (bit % kWordBits) & 1U) != 0;
}

void clear(std::span<uint32_t> words, int64_t bit) {
  words[static_cast<size_t>(bit / kWordBits)] &= ~(uint32_t{1} << (bit % kWordBits));
}

// The tokens without control characters: JSON on one line has none, but xgrammar lets them into its
// strings of limited length.
Words one_line_tokens(const Tokenizer& tokenizer, int64_t size) {
  constexpr unsigned char kBlank = ' ';
  Words words(static_cast<size_t>((size + kWordBits - 1) / kWordBits), ~uint32_t{0});
  const auto pieces = tokenizer.pieces();
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto byte = byte_of_piece(pieces[i].text);
    const bool is_one_line =
        byte ? *byte >= kBlank : std::ranges::all_of(pieces[i].text, [](char c) {
          return static_cast<unsigned char>(c) >= kBlank;
        });
    if (!is_one_line) clear(words, static_cast<int64_t>(i));
  }
  return words;
}

// Control tokens spell nothing.
xgrammar::TokenizerInfo make_vocabulary(const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<std::string> spellings;
  for (const auto& piece : tokenizer.pieces()) {
    const bool is_text = piece.type == PieceType::kNormal || piece.type == PieceType::kByte ||
                         piece.type == PieceType::kUserDefined;
    spellings.push_back(is_text ? piece.text : "");
  }
  const auto size = std::max(vocab_size, tokenizer.n_words());
  return {spellings, xgrammar::VocabType::BYTE_FALLBACK, static_cast<int>(size),
          std::vector<int32_t>{static_cast<int32_t>(tokenizer.eos_id())}};
}

}  // namespace

struct Grammar::Compiled {
  xgrammar::CompiledGrammar grammar;
  int64_t bytes;
  std::shared_ptr<const Words> tokens;  // No others, whatever the grammar says; null: all.
};

Grammar::Grammar(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}

int64_t Grammar::bytes() const { return compiled_->bytes; }

class GrammarCompiler::Impl {
 public:
  Impl(const Tokenizer& tokenizer, int64_t vocab_size)
      : vocabulary_(make_vocabulary(tokenizer, vocab_size)),
        compiler_(
            vocabulary_,
            std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMostThreads),
            /*cache_enabled=*/false),
        one_line_(
            std::make_shared<const Words>(one_line_tokens(tokenizer, vocabulary_.GetVocabSize()))) {
  }

  std::optional<Grammar> find(const GrammarSource& source) {
    const std::lock_guard lock(cache_mutex_);
    const auto found = std::ranges::find(cache_, source, &std::pair<GrammarSource, Grammar>::first);
    if (found == cache_.end()) return std::nullopt;
    cache_.splice(cache_.begin(), cache_, found);
    return cache_.front().second;
  }

  // One at a time, on a thread of its own: xgrammar cannot be stopped, but waited for no longer.
  Grammar compile(const GrammarSource& source) {
    const auto deadline = Clock::now() + kDeadline;
    const auto refuse_late = [&] {
      refuse(source, fmt::format("it was not ready after {} seconds; give a simpler one",
                                 kDeadline.count()));
    };
    const std::unique_lock lock(mutex_, deadline);
    const bool is_free = lock.owns_lock() && (!last_.valid() || last_.wait_until(deadline) ==
                                                                    std::future_status::ready);
    if (!is_free) refuse_late();
    last_ = std::async(std::launch::async, [this, source] { return make(source); }).share();
    if (last_.wait_until(deadline) != std::future_status::ready) refuse_late();
    auto grammar = last_.get();
    remember(source, grammar);
    return grammar;
  }

 private:
  Grammar make(const GrammarSource& source) {
    xgrammar::first_warning().clear();
    try {
      const auto grammar = parse(source);
      const auto& warning = xgrammar::first_warning();
      if (!warning.empty()) refuse(source, warning.substr(0, warning.find("; ignoring")));
      auto compiled = compiler_.CompileGrammar(grammar);
      const auto bytes = static_cast<int64_t>(compiled.MemorySizeBytes());
      const bool is_json = source.kind == GrammarSource::Kind::kJsonSchema;
      return Grammar(std::make_shared<const Grammar::Compiled>(
          Grammar::Compiled{std::move(compiled), bytes, is_json ? one_line_ : nullptr}));
    } catch (const std::invalid_argument&) {
      throw;
    } catch (const std::exception& error) {
      refuse(source, error.what());
    }
  }

  // The one that was used last is kept whatever its size.
  void remember(const GrammarSource& source, const Grammar& grammar) {
    const std::lock_guard lock(cache_mutex_);
    cache_.emplace_front(source, grammar);
    int64_t bytes = 0;
    auto end = cache_.begin();
    while (end != cache_.end()) {
      bytes += end->second.bytes() + static_cast<int64_t>(end->first.text.size());
      if (bytes > kCacheBytes && end != cache_.begin()) break;
      ++end;
    }
    cache_.erase(end, cache_.end());
  }

  xgrammar::TokenizerInfo vocabulary_;
  xgrammar::GrammarCompiler compiler_;
  std::shared_ptr<const Words> one_line_;
  std::mutex cache_mutex_;
  std::list<std::pair<GrammarSource, Grammar>> cache_;  // The one that was used last comes first.
  std::timed_mutex mutex_;                              // Of last_.
  std::shared_future<Grammar> last_;                    // Waits for its thread when it goes.
};

GrammarCompiler::GrammarCompiler(const Tokenizer& tokenizer, int64_t vocab_size)
    : impl_(std::make_unique<Impl>(tokenizer, vocab_size)) {}

GrammarCompiler::~GrammarCompiler() = default;

Grammar GrammarCompiler::compile(const GrammarSource& source) {
  if (source.text.size() > kMostBytes) {
    refuse(source, fmt::format("it has {} bytes, but may have {}", source.text.size(), kMostBytes));
  }
  if (auto known = impl_->find(source)) return *std::move(known);
  return impl_->compile(source);
}

class GrammarState::Impl {
 public:
  Impl(std::shared_ptr<const Grammar::Compiled> compiled, std::span<const int64_t> stop_ids)
      : compiled_(std::move(compiled)),
        stop_ids_(stop_ids.begin(), stop_ids.end()),
        matcher_(compiled_->grammar, std::vector<int>(stop_ids.begin(), stop_ids.end())),
        words_(static_cast<size_t>(
            xgrammar::GetBitmaskSize(compiled_->grammar.GetTokenizerInfo().GetVocabSize()))) {}
  Impl(const Impl& other)
      : compiled_(other.compiled_),
        stop_ids_(other.stop_ids_),
        matcher_(other.matcher_.Fork()),
        words_(other.words_),
        is_filled_(other.is_filled_) {}
  Impl& operator=(const Impl&) = delete;

  bool accept(int64_t token) {
    if (std::ranges::find(stop_ids_, token) != stop_ids_.end()) return matcher_.IsCompleted();
    if (compiled_->tokens && !is_set(*compiled_->tokens, token)) return false;
    if (!matcher_.AcceptToken(static_cast<int32_t>(token))) return false;
    is_filled_ = false;
    return true;
  }

  std::span<const uint32_t> mask() {
    if (std::exchange(is_filled_, true)) return words_;
    auto size = static_cast<int64_t>(words_.size());
    DLTensor tensor{.data = words_.data(),
                    .device = {kDLCPU, 0},
                    .ndim = 1,
                    .dtype = {kDLInt, kWordBits, 1},
                    .shape = &size,
                    .strides = nullptr,
                    .byte_offset = 0};
    matcher_.FillNextTokenBitmask(&tensor);
    if (!compiled_->tokens) return words_;
    for (size_t i = 0; i < words_.size(); ++i) words_[i] &= (*compiled_->tokens)[i];
    return words_;
  }

  bool is_over() {
    if (!matcher_.IsCompleted()) return false;
    auto others = std::vector<uint32_t>(mask().begin(), mask().end());
    for (const auto id : stop_ids_) clear(others, id);
    return std::ranges::all_of(others, [](uint32_t word) { return word == 0; });
  }

 private:
  std::shared_ptr<const Grammar::Compiled> compiled_;
  std::vector<int64_t> stop_ids_;
  xgrammar::GrammarMatcher matcher_;
  Words words_;
  bool is_filled_ = false;
};

GrammarState::GrammarState(const Grammar& grammar, std::span<const int64_t> stop_ids)
    : impl_(std::make_unique<Impl>(grammar.compiled_, stop_ids)) {}
GrammarState::GrammarState(const GrammarState& other)
    : impl_(std::make_unique<Impl>(*other.impl_)) {}
GrammarState::GrammarState(GrammarState&&) noexcept = default;
GrammarState& GrammarState::operator=(const GrammarState& other) {
  impl_ = std::make_unique<Impl>(*other.impl_);
  return *this;
}
GrammarState& GrammarState::operator=(GrammarState&&) noexcept = default;
GrammarState::~GrammarState() = default;

bool GrammarState::accept(int64_t token) { return impl_->accept(token); }
std::span<const uint32_t> GrammarState::mask() { return impl_->mask(); }
bool GrammarState::is_over() { return impl_->is_over(); }

}  // namespace gemma
