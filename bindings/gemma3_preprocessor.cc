#include <vector>

#include "image.h"

#include <gemma/vision/gemma3_preprocessor.h>

namespace gemma::bindings {
namespace {

py::dict to_dict(const ProcessedPrompts& prompts) {
  py::dict dict;
  dict["user_input_token_ids"] = prompts.user_input_token_ids;
  dict["image_batch"] = prompts.image_batch;
  dict["batch_size"] = prompts.batch_size;
  dict["min_prompt_len"] = prompts.min_prompt_len;
  dict["max_prompt_len"] = prompts.max_prompt_len;
  dict["max_seq_len"] = prompts.max_seq_len;
  dict["image_presence_mask"] = prompts.image_presence_mask;
  return dict;
}

}  // namespace

void bind_gemma3_preprocessor(py::module_& m) {
  m.def(
      "gemma3_input_preprocessor",
      [](const Prompt& raw_user_prompt) { return gemma3_input_preprocessor(raw_user_prompt); },
      py::arg("raw_user_prompt"), ReleaseGil());
  m.def(
      "gemma3_batch_input_preprocessor",
      [](const std::vector<Prompt>& raw_input) {
        return gemma3_batch_input_preprocessor(raw_input);
      },
      py::arg("raw_input"), ReleaseGil());
  m.def(
      "tokenize_raw_input",
      [](const Tokenizer& tokenizer, const std::vector<Prompt>& raw_input,
         const GemmaConfig& config, int64_t output_len, const py::object& device) {
        const auto place = to_device(device);
        return to_dict([&] {
          const py::gil_scoped_release release;
          return tokenize_raw_input(tokenizer, raw_input, config, output_len, place);
        }());
      },
      py::arg("tokenizer_obj"), py::arg("raw_input"), py::arg("config"), py::arg("output_len"),
      py::arg("device"));
}

}  // namespace gemma::bindings
