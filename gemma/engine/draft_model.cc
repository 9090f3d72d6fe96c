#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>

#include <gemma/engine/draft_model.h>

namespace gemma {
namespace {

// So many tokens of a text, or fewer, go through the model together with the next guess.
constexpr int64_t kShortTail = 4;

}  // namespace

void Draft::accept(int64_t right) {
  if (sequence_) ModelRunner::accept(*sequence_, std::min(right, tried_));
  tried_ = 0;
}

void Draft::clear() {
  sequence_.reset();
  tried_ = 0;
}

DraftModel::DraftModel(EngineModel model, const RunnerOptions& options)
    : model_(std::move(model)), runner_(model_, options) {
  if (runner_.store()->has_slots()) {
    throw std::invalid_argument(
        "engine: the draft model has recurrent layers, which cannot take tokens back; give "
        "another");
  }
}

std::vector<std::vector<int64_t>> DraftModel::guess(std::span<const Text> texts) {
  std::vector<std::vector<int64_t>> guesses(texts.size());
  std::vector<Text> wanted;
  std::vector<std::vector<int64_t>*> of_wanted;
  for (size_t i = 0; i < texts.size(); ++i) {
    auto text = texts[i];
    text.most = std::min(text.most, model_->max_positions() - std::ssize(text.tokens));
    text.draft->tried_ = 0;
    if (text.most < 1) continue;
    wanted.push_back(text);
    of_wanted.push_back(&guesses[i]);
  }
  if (wanted.empty() || !has_room(wanted)) return guesses;
  catch_up(wanted);
  std::vector<ModelRunner::Feed> feeds;
  for (const auto& [tokens, draft, most] : wanted) {
    feeds.push_back(
        {&*draft->sequence_, tokens.subspan(static_cast<size_t>(draft->sequence_->length()))});
  }
  extend(feeds, of_wanted);
  for (const auto& feed : feeds) ModelRunner::accept(*feed.sequence, std::ssize(feed.tokens));
  // The tokens of a guess are tried out again with each that is added: a few rows cost hardly more
  // than one, and nothing has to be taken back when they turn out to be wrong.
  for (;;) {
    feeds.clear();
    std::vector<std::vector<int64_t>*> longer;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (std::ssize(*of_wanted[i]) == wanted[i].most) continue;
      wanted[i].draft->tried_ = std::ssize(*of_wanted[i]);
      feeds.push_back({&*wanted[i].draft->sequence_, *of_wanted[i]});
      longer.push_back(of_wanted[i]);
    }
    if (feeds.empty()) return guesses;
    extend(feeds, longer);
  }
}

bool DraftModel::has_room(std::span<const Text> texts) const {
  std::vector<ModelRunner::Need> needs;
  for (const auto& [tokens, draft, most] : texts) {
    const auto* const sequence = draft->sequence_ ? &*draft->sequence_ : nullptr;
    const auto known = sequence == nullptr ? 0 : sequence->length();
    needs.push_back({sequence, std::ssize(tokens) - known + most});
  }
  return runner_.has_room(needs);
}

// All but the last tokens of the texts, where many are not known yet.
void DraftModel::catch_up(std::span<const Text> texts) {
  std::vector<ModelRunner::Feed> feeds;
  for (const auto& [tokens, draft, _] : texts) {
    if (!draft->sequence_) draft->sequence_ = runner_.make_sequence();
    const auto known = draft->sequence_->length();
    if (std::ssize(tokens) - known <= kShortTail) continue;
    feeds.push_back(
        {&*draft->sequence_, tokens.first(tokens.size() - 1).subspan(static_cast<size_t>(known))});
  }
  if (!feeds.empty()) runner_.prompt(feeds);
}

// Adds the likeliest token behind each feed to its guess.
void DraftModel::extend(std::span<const ModelRunner::Feed> feeds,
                        std::span<std::vector<int64_t>* const> guesses) {
  const auto hidden = runner_.try_out(feeds);
  const torch::NoGradGuard no_grad;
  const UseLock::Use use(model_->use_lock());
  std::vector<int64_t> rows;
  auto others = std::ssize(feeds);  // Rows of all first tokens, then of the others.
  for (size_t i = 0; i < feeds.size(); ++i) {
    const auto more = std::ssize(feeds[i].tokens) - 1;
    others += more;
    rows.push_back(more == 0 ? static_cast<int64_t>(i) : others - 1);
  }
  const auto last = hidden.index_select(0, at::tensor(rows, hidden.options().dtype(at::kLong)));
  if (!logits_.defined() || logits_.size(0) < last.size(0)) {
    logits_ = at::empty({last.size(0), model_->vocab_size()}, at::kFloat);
  }
  const auto tokens = model_->logits(last, logits_).argmax(-1).cpu();
  for (size_t i = 0; i < guesses.size(); ++i) {
    guesses[i]->push_back(tokens[static_cast<int64_t>(i)].item<int64_t>());
  }
}

}  // namespace gemma
