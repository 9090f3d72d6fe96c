#include <gemma/generate/loops.h>

namespace gemma {

GenerateOptions options_for_row(const GenerateOptions& options, int64_t row) {
  auto alone = options;
  if (options.on_token) {
    alone.on_token = [&options, row](int64_t /*row*/, int64_t token) {
      options.on_token(row, token);
    };
  }
  if (options.on_prompt) {
    alone.on_prompt = [&options, row](int64_t /*row*/, int64_t tokens) {
      options.on_prompt(row, tokens);
    };
  }
  return alone;
}

TokenRows generate_tokens(LanguageModelImpl& model,
                          torch::Device device,
                          const GenerateRequest& request,
                          const ModelInputs& inputs,
                          const GenerateOptions& options) {
  model.check_device(device);
  if (options.on_prompt) {
    for (size_t i = 0; i < request.prompts.size(); ++i) {
      options.on_prompt(static_cast<int64_t>(i), std::ssize(request.prompts[i]));
    }
  }
  Continuations continuations(request.prompt_lens(), request.output_lens,
                              model.tokenizer().eos_id(), options);
  if (model.numerics() == Numerics::kExact) {
    generate_exact(model, device, request, inputs, options, continuations);
  } else {
    generate_fast(model, request, inputs.images, options, continuations);
  }
  return continuations.texts();
}

}  // namespace gemma
