#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/server/base64.h>
#include <gemma/server/embeddings.h>

namespace gemma::server {
namespace {

constexpr size_t kMostInputs = 2048;

static_assert(std::endian::native == std::endian::little, "Base64 has the lowest byte first");

// A text, tokens, or a list of either.
decltype(EmbeddingsRequest::inputs) read_inputs(const Fields& fields, int64_t vocab_size) {
  const auto* input = fields.find("input");
  if (input == nullptr) throw ApiError::bad_field("input", "input is missing");
  if (input->is_string()) return {input->get<std::string>()};
  if (!input->is_array() || input->empty()) {
    fields.refuse("input", *input, "a text, a list of token ids, or a list of these");
  }
  if (input->front().is_number()) return {tokens_of(*input, "input", vocab_size)};
  if (input->size() > kMostInputs) {
    throw ApiError::bad_field("input", fmt::format("input has {} texts, but must have {} at most",
                                                   input->size(), kMostInputs));
  }
  decltype(EmbeddingsRequest::inputs) inputs;
  for (const auto& value : *input) {
    if (value.is_string()) {
      inputs.emplace_back(value.get<std::string>());
    } else {
      inputs.emplace_back(tokens_of(value, "input", vocab_size));
    }
  }
  return inputs;
}

// The token ids of the inputs.
std::vector<std::vector<int64_t>> encode(const EmbeddingsRequest& request,
                                         const EmbeddingGemmaImpl& model) {
  std::vector<std::vector<int64_t>> texts;
  const auto most = model.config().text.max_position_embeddings;
  for (const auto& input : request.inputs) {
    if (const auto* text = std::get_if<std::string>(&input)) {
      try {
        texts.push_back(model.encode(*text, request.options));
      } catch (const std::invalid_argument& error) {
        throw ApiError::bad_field("prompt_name", error.what());
      }
    } else {
      texts.push_back(std::get<std::vector<int64_t>>(input));
    }
    const auto tokens = std::ssize(texts.back());
    if (tokens == 0) throw ApiError::bad_field("input", "input has a text without tokens");
    if (tokens <= most) continue;
    throw ApiError::bad_field(
        "input",
        fmt::format("text {} of input has {} tokens, but may have {}; cut it, "
                    "or set truncate",
                    texts.size() - 1, tokens, most),
        "context_length_exceeded");
  }
  return texts;
}

std::span<const float> numbers_of(const at::Tensor& row) {
  return {row.const_data_ptr<float>(), static_cast<size_t>(row.numel())};
}

// JSON has no others.
bool is_finite(const at::Tensor& row) {
  return std::ranges::all_of(numbers_of(row), [](float number) { return std::isfinite(number); });
}

std::string text_of(std::span<const float> row, bool as_base64) {
  if (as_base64) return fmt::format("\"{}\"", to_base64(std::as_bytes(row)));
  // The shortest numbers that are these in float32.
  return fmt::format("[{}]", fmt::join(row, ","));
}

// Put together as text: a list of numbers is long.
std::string answer(std::span<const at::Tensor> rows,
                   const EmbeddingsRequest& request,
                   const std::string& model,
                   int64_t tokens) {
  std::string body = "{\"object\":\"list\",\"data\":[";
  for (size_t i = 0; i < rows.size(); ++i) {
    fmt::format_to(std::back_inserter(body),
                   "{}{{\"object\":\"embedding\",\"index\":{},\"embedding\":{}}}",
                   i == 0 ? "" : ",", i, text_of(numbers_of(rows[i]), request.as_base64));
  }
  fmt::format_to(std::back_inserter(body),
                 "],\"model\":{},\"usage\":{{\"prompt_tokens\":{},\"total_tokens\":{}}}}}",
                 to_text(Json(model)), tokens, tokens);
  return body;
}

std::string first_line(const char* what) {
  const std::string_view text = what;
  return std::string(text.substr(0, text.find('\n')));
}

void tell_error(const std::exception_ptr& error, CompletionContext& context, HttpReply& reply) {
  try {
    std::rethrow_exception(error);
  } catch (const ApiError& known) {
    reply.send(known.response());
  } catch (const std::exception& other) {
    context.log(fmt::format("embeddings: {}", first_line(other.what())));
    reply.send(ApiError::internal().response());
  }
}

}  // namespace

EmbeddingsRequest read_embeddings_request(const JsonValue& body,
                                          const EmbeddingGemmaConfig& config) {
  const Fields fields(body);
  EmbeddingsRequest request;
  request.inputs = read_inputs(fields, config.text.vocab_size);
  request.options.dim = fields.integer("dimensions", 1, config.dim());
  request.options.prompt_name = fields.text("prompt_name");
  request.options.truncate = fields.boolean("truncate").value_or(false);
  const auto format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64") {
    fields.refuse("encoding_format", format, "float or base64");
  }
  request.as_base64 = format == "base64";
  return request;
}

void start_embeddings(Embedder& embedder,
                      CompletionContext& context,
                      const EmbeddingsRequest& request,
                      std::shared_ptr<HttpReply> reply) {
  if (std::cmp_greater_equal(embedder.jobs(), context.max_texts)) {
    throw ApiError(429, "the queue is full; try again later", "queue_full").retry_after(1);
  }
  const auto job = std::make_shared<EmbedJob>();
  job->texts = encode(request, embedder.model());
  int64_t tokens = 0;
  for (const auto& text : job->texts) tokens += std::ssize(text);
  job->on_done = [&embedder, &context, request, reply, tokens](std::span<const at::Tensor> rows) {
    std::vector<at::Tensor> shown;
    for (const auto& row : rows) {
      shown.push_back(embedder.model().cut(row, request.options.dim).contiguous());
    }
    if (!std::ranges::all_of(shown, is_finite)) {
      const auto* what = "the numbers are NaN or infinite; serve with --dtype bfloat16 or float32";
      return tell_error(std::make_exception_ptr(std::runtime_error(what)), context, *reply);
    }
    context.metrics.add_prompt(tokens, /*cached=*/0);
    reply->set_cost({.prompt_tokens = tokens});
    reply->send({.body = answer(shown, request, context.model_name, tokens)});
  };
  job->on_error = [&context, reply](const std::exception_ptr& error) {
    tell_error(error, context, *reply);
  };
  reply->on_gone([weak = std::weak_ptr(job)] {
    if (const auto gone = weak.lock()) gone->is_cancelled = true;
  });
  embedder.submit(job);
}

}  // namespace gemma::server
