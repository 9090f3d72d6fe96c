#include <algorithm>

#include <gemma/engine/engine.h>
#include <gemma/generate/engine_loop.h>
#include <gemma/generate/request.h>

namespace gemma {

std::vector<std::string> generate_on_engine(const EngineModel& model,
                                            std::span<const std::string> prompts,
                                            int64_t output_len,
                                            std::optional<double> temperature,
                                            double top_p,
                                            int64_t top_k,
                                            const GenerateOptions& options) {
  const auto count = std::ssize(prompts);
  check_sampling(prompts.size(), output_len, temperature, top_p, top_k);
  std::vector<std::string> texts(prompts.size());
  if (output_len == 0) return texts;
  std::vector<Request> requests;
  std::vector<int64_t> tokens(prompts.size());  // Of each answer so far.
  int64_t steps = 0;
  for (int64_t row = 0; row < count; ++row) {
    auto& request = requests.emplace_back();
    request.prompt = model->tokenizer().encode(prompts[row]);
    request.rules = {
        .sampling = {.temperature = temperature.value_or(0.0), .top_p = top_p, .top_k = top_k},
        .max_tokens = output_len,
        .stop_ids = options.stop_ids};
    request.on_token = [&, row](const GeneratedToken& token) {
      if (options.on_token) options.on_token(row, token.id);
      if (++tokens[row] <= steps) return;
      if (options.on_step) options.on_step(steps);
      ++steps;
    };
    if (options.on_prompt) options.on_prompt(row, std::ssize(request.prompt));
  }
  Engine engine(model, {.kv_dtype = options.kv_dtype, .max_batch = count, .prefix_cache = false});
  auto answers = engine.generate(std::move(requests));
  std::ranges::transform(answers, texts.begin(), &Answer::text);
  return texts;
}

}  // namespace gemma
