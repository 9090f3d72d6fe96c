#include <algorithm>
#include <span>
#include <stdexcept>
#include <string_view>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <gemma/checkpoint/npy_writer.h>
#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/cli/embeddings_file.h>
#include <gemma/cli/output.h>
#include <gemma/cli/text_file.h>

namespace gemma::cli {
namespace {

using nlohmann::json;

// What a line of JSON says; the caller says which line it is.
EmbedText from_json(std::string_view line, std::string number) {
  const auto object = json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("text") || !object["text"].is_string()) {
    throw std::runtime_error("must be an object such as {\"text\": \"Mars is red.\"}");
  }
  for (const auto& [name, value] : object.items()) {
    if (name == "text") continue;
    if (name != "id") {
      throw std::runtime_error(
          fmt::format("field {} is unknown; fields: id, text", json(name).dump(-1, ' ', true)));
    }
    if (!value.is_string() && !value.is_number_integer()) {
      throw std::runtime_error("id must be a text or a whole number");
    }
    number = value.dump();
  }
  return {std::move(number), object["text"].get<std::string>()};
}

// {"id": 0, "embedding": [0.1, …]}: each number in the fewest digits that read back as it.
std::string line_of(const EmbedText& text, std::span<const float> row) {
  auto line = fmt::format("{{\"id\": {}, \"embedding\": [", text.id);
  for (size_t i = 0; i < row.size(); ++i) {
    fmt::format_to(std::back_inserter(line), "{}{}", i == 0 ? "" : ", ", row[i]);
  }
  return line + "]}\n";
}

void write_safetensors(const std::string& path, const at::Tensor& rows) {
  SafetensorsWriter file(path, {{"embeddings", at::kFloat, rows.sizes().vec()}},
                         /*overwrite=*/true);
  file.add("embeddings", rows);
  file.finish();
}

template <typename Write>
void write_lines(const std::vector<EmbedText>& texts, const at::Tensor& rows, const Write& write) {
  const auto width = static_cast<size_t>(rows.size(1));
  const std::span all(rows.const_data_ptr<float>(), texts.size() * width);
  for (size_t i = 0; i < texts.size(); ++i) {
    write(line_of(texts[i], all.subspan(i * width, width)));
  }
}

}  // namespace

std::vector<EmbedText> read_embed_texts(std::string_view flag, const std::string& path) {
  const auto content = read_text_file(flag, path);
  const bool is_json = path.ends_with(".jsonl");
  std::vector<EmbedText> texts;
  int64_t number = 1;
  for (std::string_view rest = content; !rest.empty(); ++number) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.find_first_not_of(" \t") == line.npos) continue;
    const auto id = std::to_string(texts.size());
    try {
      texts.push_back(is_json ? from_json(line, id) : EmbedText{id, std::string(line)});
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(fmt::format("{}: line {}: {}", path, number, error.what()));
    }
  }
  return texts;
}

void check_embeddings_path(const std::string& path) {
  if (path == "-") return;
  for (const std::string_view ending : {".npy", ".safetensors", ".jsonl"}) {
    if (path.ends_with(ending)) return;
  }
  throw std::invalid_argument(
      fmt::format("--output {}: must end in .npy, .safetensors or .jsonl, or be -", path));
}

void write_embeddings(const std::string& path,
                      const std::vector<EmbedText>& texts,
                      const at::Tensor& embeddings) {
  const auto rows = embeddings.cpu().contiguous();
  if (path == "-") {
    write_lines(texts, rows, [](const std::string& line) { write_output(line); });
  } else if (path.ends_with(".npy")) {
    write_npy(path, rows, /*overwrite=*/true);
  } else if (path.ends_with(".safetensors")) {
    write_safetensors(path, rows);
  } else {
    OutputFile file(path, /*overwrite=*/true);
    write_lines(texts, rows,
                [&](const std::string& line) { file.write(std::as_bytes(std::span(line))); });
    file.commit();
  }
}

}  // namespace gemma::cli
