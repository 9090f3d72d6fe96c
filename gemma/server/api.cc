#include <algorithm>
#include <chrono>
#include <exception>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/server/api.h>
#include <gemma/server/completion_form.h>
#include <gemma/server/embeddings.h>
#include <gemma/server/infill.h>
#include <gemma/server/openapi.h>
#include <gemma/server/page.h>
#include <gemma/server/response_form.h>
#include <gemma/server/response_request.h>

namespace gemma::server {
namespace {

std::string_view without_prefix(std::string_view text, std::string_view prefix) {
  return text.starts_with(prefix) ? text.substr(prefix.size()) : std::string_view();
}

// In a time that does not tell where they differ.
bool are_equal(std::string_view a, std::string_view b) {
  unsigned different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    different |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return different == 0;
}

// The host without its port.
std::string_view host_of(std::string_view host) {
  const auto port = host.rfind(':');
  return host.ends_with(']') || port == host.npos ? host : host.substr(0, port);
}

bool is_this_machine(std::string_view host) {
  return host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos);
}

// A page of another site may send other types without asking, but not this one.
JsonValue body_of(const HttpRequest& request) {
  auto type = std::string(request.header("content-type"));
  std::ranges::transform(type, type.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  const auto rest = without_prefix(type, "application/json");
  if (type != "application/json" && !rest.starts_with(';') && !rest.starts_with(' ')) {
    throw ApiError(415, "the body's type must be JSON; send Content-Type: application/json",
                   "unsupported_media_type");
  }
  return parse_body(request.body);
}

ApiError loading() { return ApiError(503, "the model is being loaded", "loading").retry_after(5); }

HttpResponse json_response(const Json& body) { return {.body = to_text(body)}; }

// The token whose name the text is, if it is one of those that /tokenizer_info names: lm-eval asks
// for their numbers so.
std::optional<int64_t> named_token(const Tokenizer& tokenizer, std::string_view text) {
  for (const auto token : {tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()}) {
    if (tokenizer.id_to_piece(token) == text) return token;
  }
  return std::nullopt;
}

}  // namespace

struct Api::Call : std::enable_shared_from_this<Call> {
  Call(HttpRequest asked, std::shared_ptr<HttpReply> answer)
      : request(std::move(asked)), reply(std::move(answer)) {}

  HttpRequest request;
  std::shared_ptr<HttpReply> reply;
};

struct Api::Route {
  std::string_view method, path;
  void (Api::*handler)(Call& call);
  bool is_quick;  // It waits for nothing.
  bool needs_key;
};

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> kRoutes = {
      {"GET", "/", &Api::page, true, false},
      {"GET", "/health", &Api::health, /*is_quick=*/true, /*needs_key=*/false},
      {"GET", "/openapi.json", &Api::tell_paths, true, false},
      {"GET", "/metrics", &Api::tell_metrics, false, true},
      {"GET", "/v1/models", &Api::models, false, true},
      {"POST", "/v1/chat/completions", &Api::chat, false, true},
      {"POST", "/v1/completions", &Api::complete, false, true},
      {"POST", "/v1/embeddings", &Api::embed, false, true},
      {"POST", "/v1/responses", &Api::respond, false, true},
      {"POST", "/infill", &Api::infill, false, true},
      {"GET", "/tokenizer_info", &Api::tell_tokenizer, false, true},
      {"POST", "/tokenize", &Api::tokenize, false, true},
      {"POST", "/detokenize", &Api::detokenize, false, true},
  };
  return kRoutes;
}

Api::Api(ApiOptions options)
    : options_(std::move(options)),
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()),
      context_{.model_name = options_.model_name,
               .max_texts = options_.max_texts,
               .timeout = options_.timeout,
               .prompt_lookup = options_.prompt_lookup,
               .log = options_.log} {}

void Api::set_model(std::unique_ptr<ServedModel> model) {
  const std::lock_guard lock(mutex_);
  if (is_closing_) return;
  model_ = std::move(model);
  loaded_ = model_.get();
}

void Api::set_embedder(std::unique_ptr<Embedder> embedder) {
  const std::lock_guard lock(mutex_);
  if (is_closing_) return;
  embedder_ = std::move(embedder);
  loaded_embedder_ = embedder_.get();
}

void Api::close() { is_closing_ = true; }

// Whatever uses the model runs on the threads of the workers.
void Api::stop() {
  close();
  worker_.stop();
  slow_worker_.stop();
  const std::lock_guard lock(mutex_);
  loaded_ = nullptr;
  loaded_embedder_ = nullptr;
  model_.reset();
  embedder_.reset();
}

ServedModel& Api::loaded() const {
  if (auto* const model = loaded_.load()) return *model;
  if (!is_loaded()) throw loading();
  throw ApiError::bad_field("model", "this model makes embeddings only; use /v1/embeddings",
                            "unsupported_value");
}

Embedder& Api::loaded_embedder() const {
  if (auto* const embedder = loaded_embedder_.load()) return *embedder;
  if (!is_loaded()) throw loading();
  throw ApiError::bad_field("model", "this model makes no embeddings; serve an EmbeddingGemma",
                            "unsupported_value");
}

const Tokenizer& Api::tokenizer() const {
  const auto* const embedder = loaded_embedder_.load();
  return embedder != nullptr ? embedder->model().tokenizer() : loaded().tokenizer();
}

int64_t Api::max_positions() const {
  const auto* const embedder = loaded_embedder_.load();
  return embedder != nullptr ? embedder->model().config().text.max_position_embeddings
                             : loaded().max_positions();
}

const Api::Route& Api::route_of(const HttpRequest& request) {
  const std::string_view given = request.method;
  const std::string_view method = given == "HEAD" ? "GET" : given;
  std::vector<std::string_view> methods;
  for (const auto& route : routes()) {
    if (route.path != request.path()) continue;
    if (route.method == method) return route;
    methods.push_back(route.method);
  }
  const auto path = to_text(Json(std::string(request.path().substr(0, 100))));
  if (methods.empty()) throw ApiError(404, fmt::format("{} is not served here", path), "not_found");
  throw ApiError(405, fmt::format("{} takes {}", path, fmt::join(methods, ", ")),
                 "method_not_allowed")
      .header("Allow", fmt::format("{}", fmt::join(methods, ", ")));
}

void Api::check_access(const HttpRequest& request, bool needs_key) const {
  const auto host = request.header("host");
  if (options_.is_local && !host.empty() && !is_this_machine(host_of(host))) {
    throw ApiError(403, "the host that the request names is not this machine; use localhost",
                   "unknown_host");
  }
  if (options_.api_keys.empty() || !needs_key) return;
  const auto bearer = without_prefix(request.header("authorization"), "Bearer ");
  const auto given = bearer.empty() ? request.header("x-api-key") : bearer;
  bool is_known = false;
  for (const auto& key : options_.api_keys) is_known |= are_equal(given, key);
  if (!is_known) {
    throw ApiError(401, "the API key is missing or wrong; send Authorization: Bearer KEY",
                   "invalid_api_key");
  }
}

void Api::handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  try {
    const auto& route = route_of(request);
    check_access(request, route.needs_key);
    if (is_closing_) throw ApiError(503, "the server is shutting down", "shutting_down");
    const auto call = std::make_shared<Call>(std::move(request), reply);
    const auto body = [this, &route, call] { (this->*route.handler)(*call); };
    if (route.is_quick) return run(*call, body);
    worker_.post([this, call, body] { run(*call, body); });
  } catch (const ApiError& error) {
    reply->send(error.response());
  }
}

void Api::run(Call& call, const std::function<void()>& body) const {
  try {
    body();
  } catch (const ApiError& error) {
    call.reply->send(error.response());
  } catch (const std::exception& error) {
    const std::string_view what = error.what();
    options_.log(fmt::format("{}: {}", call.request.path(), what.substr(0, what.find('\n'))));
    call.reply->send(ApiError::internal().response());
  }
}

void Api::run_slowly(Call& call, std::function<void()> body) {
  if (std::cmp_greater_equal(slow_worker_.waiting(), options_.max_texts)) {
    throw ApiError(429, "the queue is full; try again later", "queue_full").retry_after(1);
  }
  const auto is_gone = std::make_shared<std::atomic<bool>>(false);
  call.reply->on_gone([is_gone] { *is_gone = true; });
  slow_worker_.post([this, kept = call.shared_from_this(), is_gone, body = std::move(body)] {
    if (!*is_gone) run(*kept, body);
  });
}

// The page holds no key: it asks its user for one where the server wants it.
void Api::page(Call& call) {
  call.reply->send({.content_type = "text/html; charset=utf-8",
                    .body = page_text(),
                    .headers = {{"Content-Security-Policy",
                                 "default-src 'none'; style-src 'unsafe-inline'; "
                                 "script-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
                                 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                                {"Referrer-Policy", "no-referrer"},
                                {"Cache-Control", "no-cache"}}});
}

void Api::tell_paths(Call& call) { call.reply->send({.body = openapi_text()}); }

void Api::health(Call& call) {
  if (!is_loaded()) throw loading();
  call.reply->send(json_response({{"status", "ok"}}));
}

void Api::models(Call& call) {
  Json model{{"id", options_.model_name},
             {"object", "model"},
             {"created", created_},
             {"owned_by", "gemma-libtorch"}};
  if (is_loaded()) model["max_model_len"] = max_positions();
  if (loaded_embedder_ != nullptr) model["capabilities"] = Json::array({"embedding"});
  if (auto* const loaded = loaded_.load()) {
    model["capabilities"] = Json::array({"completion"});
    if (loaded->sees_images()) model["capabilities"].push_back("vision");
  }
  call.reply->send(json_response({{"object", "list"}, {"data", Json::array({std::move(model)})}}));
}

void Api::tell_metrics(Call& call) {
  std::optional<EngineStatus> engine;
  if (auto* const model = loaded_.load()) engine = model->status();
  call.reply->send({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                    .body = context_.metrics.text(engine)});
}

// Images take so long to be encoded that other requests do not wait for it.
void Api::answer(Call& call, CompletionRequest request, std::shared_ptr<AnswerForm> form) {
  auto& model = loaded();
  if (request.images.empty()) {
    return Completion::start(model, context_, std::move(request), std::move(form), call.reply);
  }
  run_slowly(call, [this, &model, reply = call.reply, form = std::move(form),
                    request = std::move(request)]() mutable {
    Completion::start(model, context_, std::move(request), std::move(form), reply);
  });
}

void Api::chat(Call& call) {
  auto& model = loaded();
  auto request = read_chat_request(body_of(call.request), model.vocab_size());
  auto form = std::make_shared<CompletionForm>(/*is_chat=*/true, options_.model_name,
                                               request.include_usage, model.tokenizer());
  answer(call, std::move(request), std::move(form));
}

void Api::complete(Call& call) {
  auto& model = loaded();
  auto request = read_text_request(body_of(call.request), model.vocab_size());
  auto form = std::make_shared<CompletionForm>(/*is_chat=*/false, options_.model_name,
                                               request.include_usage, model.tokenizer());
  answer(call, std::move(request), std::move(form));
}

void Api::respond(Call& call) {
  auto& model = loaded();
  auto request = read_response_request(body_of(call.request), model.vocab_size());
  auto form = std::make_shared<ResponseForm>(options_.model_name, std::move(request.repeated),
                                             model.tokenizer());
  answer(call, std::move(request.completion), std::move(form));
}

void Api::infill(Call& call) {
  auto& model = loaded();
  auto request = read_infill_request(body_of(call.request), model.vocab_size());
  answer(call, std::move(request), std::make_shared<InfillForm>(options_.model_name));
}

void Api::embed(Call& call) {
  auto& embedder = loaded_embedder();
  start_embeddings(embedder, context_,
                   read_embeddings_request(body_of(call.request), embedder.model().config()),
                   call.reply);
}

// By the names of llama.cpp, and of vLLM, whose tokens begin with bos.
void Api::tokenize(Call& call) {
  const auto& tokenizer = this->tokenizer();
  const auto body = body_of(call.request);
  const Fields fields(body);
  const auto content = fields.text("content");
  const auto prompt = fields.text("prompt");
  if (content.has_value() == prompt.has_value()) {
    throw ApiError::bad_field("prompt", "the body must have either a prompt or a content");
  }
  constexpr size_t kMost = 500'000;  // More keeps others waiting for seconds.
  if (const auto size = (content ? *content : *prompt).size(); size > kMost) {
    throw ApiError::bad_field(
        content ? "content" : "prompt",
        fmt::format("the text has {} bytes, but must have {} at most; send parts", size, kMost));
  }
  const bool bos = content ? fields.boolean("add_special").value_or(false)
                           : fields.boolean("add_special_tokens").value_or(true);
  const auto& text = content ? *content : *prompt;
  const auto named = named_token(tokenizer, text);
  const auto tokens = named && !bos ? std::vector<int64_t>{*named} : tokenizer.encode(text, bos);
  call.reply->send(json_response(
      {{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", max_positions()}}));
}

// As vLLM names them.
void Api::tell_tokenizer(Call& call) {
  auto& model = loaded();
  const auto& tokenizer = model.tokenizer();
  Json all;
  for (const auto& [name, token] :
       {std::pair("bos_token", tokenizer.bos_id()), std::pair("eos_token", tokenizer.eos_id()),
        std::pair("pad_token", tokenizer.pad_id())}) {
    all[name] = tokenizer.id_to_piece(token);
    all[fmt::format("{}_id", name)] = token;
  }
  all["add_bos_token"] = true;
  all["vocab_size"] = model.vocab_size();
  all["model_max_length"] = model.max_positions();
  call.reply->send(json_response(all));
}

void Api::detokenize(Call& call) {
  const auto& tokenizer = this->tokenizer();
  const auto body = body_of(call.request);
  const auto* list = Fields(body).find("tokens");
  if (list == nullptr) throw ApiError::bad_field("tokens", "tokens is missing");
  const auto text = tokenizer.decode(tokens_of(*list, "tokens", tokenizer.n_words()));
  call.reply->send(json_response({{"content", text}, {"prompt", text}}));
}

}  // namespace gemma::server
