#include <utility>

#include <gemma/text/stream_decoder.h>

namespace gemma {
namespace {

// U+FFFD, which stands for bytes that are no character, or not yet.
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

}  // namespace

// A token's text depends on what is before it (a blank at the start of a text is dropped), so it is
// what the tokens have to say together that the earlier ones do not say.
std::string StreamDecoder::add(int64_t token) {
  tokens_.push_back(token);
  const std::vector<int64_t> before(tokens_.begin(),
                                    tokens_.begin() + static_cast<std::ptrdiff_t>(shown_));
  const auto old_text = tokenizer_.decode(before);
  const auto text = tokenizer_.decode(tokens_);
  if (text.size() <= old_text.size() || text.ends_with(kReplacement)) return {};
  tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(shown_));
  shown_ = tokens_.size();
  return text.substr(old_text.size());
}

std::string StreamDecoder::finish() {
  const std::vector<int64_t> before(tokens_.begin(),
                                    tokens_.begin() + static_cast<std::ptrdiff_t>(shown_));
  auto rest = tokenizer_.decode(tokens_).substr(tokenizer_.decode(before).size());
  tokens_.clear();
  shown_ = 0;
  return rest;
}

}  // namespace gemma
