#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <gemma/cli/embed.h>
#include <gemma/cli/embedding_model.h>
#include <gemma/cli/embeddings_file.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/text_file.h>
#include <gemma/models/embedding_gemma.h>

namespace gemma::cli {
namespace {

struct EmbedCommand {
  ModelOptions model;
  std::vector<std::string> texts;
  std::string file;  // Empty: none.
  std::string output = "-";
  EmbedOptions options;
};

std::vector<EmbedText> texts_of(const EmbedCommand& command) {
  if (command.texts.empty() == command.file.empty()) {
    throw std::invalid_argument("embed: give either texts or --file");
  }
  if (!command.file.empty()) return read_embed_texts("--file", command.file);
  std::vector<EmbedText> texts;
  for (const auto& text : command.texts) {
    texts.push_back({std::to_string(texts.size()), checked_utf8("embed", text)});
  }
  return texts;
}

void embed(EmbedCommand command) {
  check_embeddings_path(command.output);
  const auto texts = texts_of(command);
  auto model = load_embedding_gemma(command.model);
  const InterruptGuard guard;
  command.options.on_layer = [](int64_t /*done*/, int64_t /*total*/) { check_interrupt(); };
  std::vector<std::string> plain;
  for (const auto& text : texts) plain.push_back(text.text);
  write_embeddings(command.output, texts, model->embed(plain, command.options));
}

}  // namespace

void add_embed(CLI::App& app) {
  const auto options = std::make_shared<EmbedCommand>();
  auto* command = app.add_subcommand("embed", "Turn texts into vectors by an EmbeddingGemma.");
  auto& model = options->model;
  command->add_option("--ckpt", model.ckpt, "A directory of sentence-transformers")->required();
  command->add_option("texts", options->texts, "Texts");
  command->add_option("--file", options->file,
                      "A text in each line, or objects {\"text\": …, \"id\": …} in a file "
                      "*.jsonl; - is standard input");
  command
      ->add_option("-o,--output", options->output,
                   "*.npy, *.safetensors or *.jsonl; - is standard output, in lines of JSON")
      ->capture_default_str();
  command->add_option(
      "--dim", options->options.dim,
      "Keep the first so many numbers; the model was trained for 768, 512, 256, 128");
  command->add_option(both("prompt_name"), options->options.prompt_name,
                      "The task, such as query or document: what the model's directory puts before "
                      "texts of it");
  command->add_flag("--truncate", options->options.truncate, "Cut texts that are too long");
  command->add_option("--tokenizer", model.tokenizer,
                      "tokenizer.model or tokenizer.json; that beside the weights when omitted");
  command->add_option("--device", model.device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--numerics", model.numerics,
                      "fast (own kernels; default on the CPU) or exact (gemma_pytorch's layers)");
  command->add_option("--dtype", model.dtype,
                      "float32, bfloat16 or float16; the checkpoint's when omitted");
  command->add_option("--threads", model.threads, "CPU threads; LibTorch's choice when omitted");
  command->callback([options] { embed(*options); });
}

}  // namespace gemma::cli
