#include <algorithm>
#include <utility>

#include <gemma/server/api_error.h>
#include <gemma/server/embedder.h>

namespace gemma::server {
namespace {

// Of a pass, unless one text alone has more: as many as EmbeddingGemma takes together.
constexpr int64_t kTokensOfPass = 2048;

}  // namespace

Embedder::Embedder(EmbeddingGemma model) : model_(std::move(model)), thread_([this] { run(); }) {}

Embedder::~Embedder() {
  {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  changed_.notify_one();
  thread_.join();
  const auto error =
      std::make_exception_ptr(ApiError(503, "the server is shutting down", "shutting_down"));
  for (const auto& work : works_) work.job->on_error(error);
  for (const auto& job : submitted_) job->on_error(error);
}

void Embedder::submit(std::shared_ptr<EmbedJob> job) {
  {
    const std::lock_guard lock(mutex_);
    submitted_.push_back(std::move(job));
    ++jobs_;
  }
  changed_.notify_one();
}

size_t Embedder::jobs() const {
  const std::lock_guard lock(mutex_);
  return jobs_;
}

// For something to do, which it takes -> whether there is any.
bool Embedder::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_stopped_ || !submitted_.empty() || !works_.empty(); });
  for (; !is_stopped_ && !submitted_.empty(); submitted_.pop_front()) {
    works_.push_back({.job = submitted_.front()});
    works_.back().rows.resize(works_.back().job->texts.size());
  }
  return !is_stopped_;
}

std::vector<Embedder::PassText> Embedder::next_pass() {
  std::vector<PassText> pass;
  int64_t tokens = 0;
  for (bool is_any = true; is_any;) {
    is_any = false;
    for (auto& work : works_) {
      if (work.begun == work.rows.size() || work.job->is_cancelled) continue;
      const auto size = std::ssize(work.job->texts[work.begun]);
      if (!pass.empty() && tokens + size > kTokensOfPass) return pass;
      pass.push_back({&work, work.begun++});
      tokens += size;
      is_any = true;
    }
  }
  return pass;
}

void Embedder::embed(std::span<const PassText> pass) {
  try {
    std::vector<std::vector<int64_t>> texts;
    for (const auto& [work, index] : pass) texts.push_back(work->job->texts[index]);
    const auto rows = model_->forward(texts);
    for (size_t i = 0; i < pass.size(); ++i) {
      auto& [job, begun, done, kept] = *pass[i].work;
      kept[pass[i].index] = rows[static_cast<int64_t>(i)];
      if (++done == kept.size() && !job->is_cancelled) job->on_done(kept);
    }
  } catch (const std::exception&) {
    for (const auto& [work, index] : pass) {
      if (work->job->is_cancelled.exchange(true)) continue;
      work->job->on_error(std::current_exception());
    }
  }
}

void Embedder::run() {
  while (wait()) {
    embed(next_pass());
    const auto over = std::erase_if(works_, [](const Work& work) {
      return work.job->is_cancelled || work.done == work.rows.size();
    });
    const std::lock_guard lock(mutex_);
    jobs_ -= over;
  }
}

}  // namespace gemma::server
