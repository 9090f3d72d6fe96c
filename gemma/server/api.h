#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gemma/server/completion.h>
#include <gemma/server/embedder.h>
#include <gemma/server/http.h>
#include <gemma/server/served_model.h>
#include <gemma/server/worker.h>

namespace gemma::server {

struct ApiOptions {
  std::string model_name;
  std::vector<std::string> api_keys = {};  ///< One of which a client has to send; none: no key.
  /// Requests have to name this machine as their host: a page of the web could else reach the
  /// server by a name that it lets point here.
  bool is_local = true;
  int64_t max_texts = 160;                       ///< That run and wait.
  std::optional<double> timeout = std::nullopt;  ///< Of an answer, in seconds.
  int64_t prompt_lookup = 0;                     ///< As GenerateRules'.
  std::function<void(const std::string& line)> log = [](const std::string& /*line*/) {};
};

/// Answers requests in the form of OpenAI's API. From any thread.
class Api {
 public:
  explicit Api(ApiOptions options);

  /// Never blocks. As HttpHandler.
  void handle(HttpRequest request, std::shared_ptr<HttpReply> reply);

  /// Until then there is none, and requests that need one are refused as `loading`.
  void set_model(std::unique_ptr<ServedModel> model);
  /// In a model's place: texts become vectors, and nothing else is done.
  void set_embedder(std::unique_ptr<Embedder> embedder);
  /// From now on requests are refused as `shutting_down`.
  void close();
  /// The same, and texts that are not complete end.
  void stop();

  Metrics& metrics() { return context_.metrics; }

 private:
  struct Call;
  struct Route;
  static const std::vector<Route>& routes();
  static const Route& route_of(const HttpRequest& request);

  void check_access(const HttpRequest& request, bool needs_key) const;
  void run(Call& call, const std::function<void()>& body) const;
  void run_slowly(Call& call, std::function<void()> body);
  bool is_loaded() const { return loaded_ != nullptr || loaded_embedder_ != nullptr; }
  ServedModel& loaded() const;
  Embedder& loaded_embedder() const;
  const Tokenizer& tokenizer() const;
  int64_t max_positions() const;

  void page(Call& call);
  void tell_paths(Call& call);
  void health(Call& call);
  void models(Call& call);
  void tell_metrics(Call& call);
  void answer(Call& call, CompletionRequest request, std::shared_ptr<AnswerForm> form);
  void chat(Call& call);
  void complete(Call& call);
  void embed(Call& call);
  void respond(Call& call);
  void infill(Call& call);
  void tokenize(Call& call);
  void detokenize(Call& call);
  void tell_tokenizer(Call& call);

  ApiOptions options_;
  int64_t created_;
  CompletionContext context_;
  std::atomic<bool> is_closing_ = false;
  std::mutex mutex_;  // Of model_ and embedder_.
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<Embedder> embedder_;
  std::atomic<ServedModel*> loaded_ = nullptr;
  std::atomic<Embedder*> loaded_embedder_ = nullptr;
  Worker worker_;
  Worker slow_worker_;  // Of what takes so long that other requests are not to wait for it.
};

}  // namespace gemma::server
