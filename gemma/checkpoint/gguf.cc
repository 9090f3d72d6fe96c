#include <algorithm>
#include <bit>
#include <limits>
#include <set>
#include <stdexcept>
#include <tuple>
#include <utility>

#include <c10/core/ScalarType.h>
#include <c10/util/accumulate.h>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/gguf.h>
#include <gemma/checkpoint/gguf_blocks.h>
#include <gemma/checkpoint/utf8.h>

// The format: ggml's gguf.h, and docs/gguf.md in ggml's repository.
namespace gemma {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kMaxNameLength = 65535;  // The format's, of keys.
constexpr uint64_t kMaxTensors = uint64_t{1} << 18;
constexpr uint64_t kMaxKeys = uint64_t{1} << 16;
constexpr uint64_t kMaxElements = uint64_t{1} << 48;
constexpr uint32_t kMaxDimensions = 4;  // GGML_MAX_DIMS.
constexpr int kMaxNesting = 4;

// A number of ggml_type, and how the elements of such a tensor are read.
struct ElementType {
  uint32_t number;
  c10::ScalarType dtype;
  Encoding encoding;
  uint64_t bytes = 0;  // Of a plain element.
};

constexpr auto kFloat = c10::ScalarType::Float;
constexpr ElementType kElementTypes[] = {
    {0, kFloat, Encoding::kPlain, 4},
    {1, c10::ScalarType::Half, Encoding::kPlain, 2},
    {2, kFloat, Encoding::kQ4_0},
    {3, kFloat, Encoding::kQ4_1},
    {6, kFloat, Encoding::kQ5_0},
    {7, kFloat, Encoding::kQ5_1},
    {8, kFloat, Encoding::kQ8_0},
    {12, kFloat, Encoding::kQ4K},
    {13, kFloat, Encoding::kQ5K},
    {14, kFloat, Encoding::kQ6K},
    {20, kFloat, Encoding::kIq4Nl},
    {24, c10::ScalarType::Char, Encoding::kPlain, 1},
    {25, c10::ScalarType::Short, Encoding::kPlain, 2},
    {26, c10::ScalarType::Int, Encoding::kPlain, 4},
    {27, c10::ScalarType::Long, Encoding::kPlain, 8},
    {28, c10::ScalarType::Double, Encoding::kPlain, 8},
    {30, c10::ScalarType::BFloat16, Encoding::kPlain, 2},
};

// The other types of ggml that people meet, for messages.
constexpr std::pair<uint32_t, std::string_view> kUnreadTypes[] = {
    {9, "Q8_1"},    {10, "Q2_K"},    {11, "Q3_K"},  {15, "Q8_K"},  {16, "IQ2_XXS"},
    {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},
    {23, "IQ4_XS"}, {29, "IQ1_M"},   {34, "TQ1_0"}, {35, "TQ2_0"}, {39, "MXFP4"}};

// Reads from front to back; every step is checked against the end.
class Reader {
 public:
  explicit Reader(Bytes file) : file_(file) {}

  uint64_t position() const { return position_; }

  Bytes take(uint64_t size, std::string_view what) {
    const Bytes bytes = slice(file_, position_, size, what);
    position_ += size;
    return bytes;
  }

  template <typename T>
  T number(std::string_view what) {
    return load<T>(take(sizeof(T), what), 0, what);
  }

  std::string_view text(std::string_view what) {
    return as_text(take(number<uint64_t>(what), what));
  }

  // A key or a tensor's name.
  std::string_view name(std::string_view what) {
    const std::string_view name = text(what);
    if (name.empty() || name.size() > kMaxNameLength || !is_utf8(name)) {
      format_error("{} '{}' is not 1 to {} bytes of UTF-8: the file is damaged", what,
                   printable(name), kMaxNameLength);
    }
    return name;
  }

 private:
  Bytes file_;
  uint64_t position_ = 0;
};

// `what` is the key whose value is read, for messages.
GgufType read_type(Reader& reader, std::string_view what) {
  const auto type = static_cast<GgufType>(reader.number<uint32_t>(what));
  if (gguf_type_info(type) == nullptr) {
    format_error("{} has a value of type {}, which GGUF does not have: the file is damaged", what,
                 static_cast<uint32_t>(type));
  }
  return type;
}

void skip_value(Reader& reader, GgufType type, std::string_view what, int nesting);

// -> element type and count of the array, whose elements end where the reader then stands.
std::pair<GgufType, uint64_t> skip_array(Reader& reader, std::string_view what, int nesting) {
  if (nesting > kMaxNesting) {
    format_error("{} has arrays {} deep: the file is damaged", what, nesting);
  }
  const GgufType element = read_type(reader, what);
  const auto count = reader.number<uint64_t>(what);
  if (const uint64_t size = gguf_type_info(element)->bytes; size != 0) {
    if (count > std::numeric_limits<uint64_t>::max() / size) {
      format_error("{} has an array of {} elements: the file is damaged", what, count);
    }
    reader.take(count * size, what);
  } else {
    // Each takes some bytes, so this ends with the file at the latest.
    for (uint64_t i = 0; i < count; ++i) skip_value(reader, element, what, nesting + 1);
  }
  return {element, count};
}

void skip_value(Reader& reader, GgufType type, std::string_view what, int nesting) {
  if (type == GgufType::kArray) {
    skip_array(reader, what, nesting);
  } else if (type == GgufType::kString) {
    reader.text(what);
  } else {
    reader.take(gguf_type_info(type)->bytes, what);
  }
}

GgufMetadata::Value read_value(Reader& reader, Bytes file, std::string_view what) {
  GgufMetadata::Value value{};
  value.type = read_type(reader, what);
  value.element = value.type;
  value.count = 1;
  uint64_t begin = reader.position();
  if (value.type == GgufType::kArray) {
    std::tie(value.element, value.count) = skip_array(reader, what, /*nesting=*/1);
    begin += sizeof(uint32_t) + sizeof(uint64_t);  // Type and count of the elements.
  } else {
    skip_value(reader, value.type, what, /*nesting=*/0);
  }
  value.bytes = file.subspan(begin, reader.position() - begin);
  return value;
}

using Values = std::map<std::string_view, GgufMetadata::Value>;

Values read_values(Reader& reader, Bytes file, uint64_t count) {
  if (count > kMaxKeys) format_error("it has {} keys: the file is damaged", count);
  Values values;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = reader.name("key");
    const std::string what = fmt::format("key '{}'", printable(key));
    if (!values.emplace(key, read_value(reader, file, what)).second) {
      format_error("it has the key '{}' twice: which one is meant?", printable(key));
    }
  }
  return values;
}

const ElementType& element_type(uint32_t number, std::string_view what) {
  const auto* const found = std::ranges::find(kElementTypes, number, &ElementType::number);
  if (found != std::end(kElementTypes)) return *found;
  const auto* const unread =
      std::ranges::find(kUnreadTypes, number, &std::pair<uint32_t, std::string_view>::first);
  format_error(
      "{} is of {}, which is not read: take the model's file in F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
      "Q5_0, Q5_1, Q4_K, Q5_K or Q6_K, or make one by `llama-quantize --allow-requantize IN OUT "
      "Q8_0`",
      what,
      unread == std::end(kUnreadTypes) ? fmt::format("ggml's type {}", number)
                                       : fmt::format("type {}", unread->second));
}

// GGUF has the innermost size first.
std::vector<int64_t> read_sizes(Reader& reader, std::string_view what) {
  const auto dimensions = reader.number<uint32_t>(what);
  if (dimensions > kMaxDimensions) {
    format_error("{} has {} dimensions, not 0 to {}: the file is damaged", what, dimensions,
                 kMaxDimensions);
  }
  std::vector<int64_t> sizes(dimensions);
  uint64_t elements = 1;  // As if sizes of 0 were 1: LibTorch multiplies the others too.
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    const auto value = reader.number<uint64_t>(what);
    if (value > kMaxElements || elements > kMaxElements / std::max<uint64_t>(value, 1)) {
      format_error("{} has more than 2^48 elements: the file is damaged", what);
    }
    elements *= std::max<uint64_t>(value, 1);
    *size = static_cast<int64_t>(value);
  }
  return sizes;
}

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) {
    strides[d - 1] = strides[d] * std::max<int64_t>(sizes[d], 1);
  }
  return strides;
}

uint64_t size_in_file(const TensorEntry& entry, const ElementType& type) {
  const auto elements = static_cast<uint64_t>(c10::multiply_integers(entry.sizes));
  if (type.encoding == Encoding::kPlain) return elements * type.bytes;
  const BlockFormat& format = block_format(type.encoding);
  const auto row = entry.sizes.empty() ? 1 : static_cast<uint64_t>(entry.sizes.back());
  if (row % format.elements != 0) {
    format_error(
        "tensor '{}' has rows of {} elements, but {} has {} in a block: the file is damaged",
        printable(entry.name), row, format.name, format.elements);
  }
  return elements / format.elements * format.bytes;
}

// Its offset counts from where the data begin, which is known after the last one.
TensorEntry read_tensor(Reader& reader) {
  TensorEntry entry{};
  entry.name = reader.name("tensor");
  const std::string what = fmt::format("tensor '{}'", printable(entry.name));
  entry.sizes = read_sizes(reader, what);
  entry.strides = contiguous_strides(entry.sizes);
  const ElementType& type = element_type(reader.number<uint32_t>(what), what);
  entry.dtype = type.dtype;
  entry.encoding = type.encoding;
  entry.offset = reader.number<uint64_t>(what);
  entry.nbytes = size_in_file(entry, type);
  return entry;
}

std::vector<TensorEntry> read_tensors(Reader& reader, uint64_t count) {
  if (count > kMaxTensors) format_error("it has {} tensors: the file is damaged", count);
  std::vector<TensorEntry> tensors;
  for (uint64_t i = 0; i < count; ++i) tensors.push_back(read_tensor(reader));
  std::set<std::string_view> names;
  for (const TensorEntry& entry : tensors) {
    if (!names.insert(entry.name).second) {
      format_error("it has a tensor '{}' twice: which one is meant?", printable(entry.name));
    }
  }
  return tensors;
}

void place_in_file(std::vector<TensorEntry>& tensors,
                   uint64_t header,
                   uint64_t alignment,
                   uint64_t file) {
  const uint64_t data = (header + alignment - 1) / alignment * alignment;
  for (TensorEntry& entry : tensors) {
    if (entry.offset % alignment != 0) {
      format_error("tensor '{}' is at {}, not at a multiple of {}: the file is damaged",
                   printable(entry.name), entry.offset, alignment);
    }
    if (data > file || !fits(entry.offset, entry.nbytes, file - data)) {
      format_error(
          "tensor '{}' would take bytes {}+{} of the {} that follow the header: the file is cut "
          "off; download it again",
          printable(entry.name), entry.offset, entry.nbytes, file - std::min(data, file));
    }
    entry.offset = entry.nbytes == 0 ? 0 : data + entry.offset;
  }
}

uint64_t alignment_of(const GgufMetadata& metadata) {
  constexpr std::string_view kKey = "general.alignment";
  const auto alignment = metadata.get<int64_t>(kKey).value_or(32);
  if (alignment < 1 || !std::has_single_bit(static_cast<uint64_t>(alignment)) ||
      alignment > std::numeric_limits<uint32_t>::max()) {
    refuse_file(
        metadata.path(),
        fmt::format("key '{}' is {}, not a power of two: the file is damaged", kKey, alignment));
  }
  return static_cast<uint64_t>(alignment);
}

void check_version(uint32_t version) {
  if (version == 2 || version == 3) return;
  if (version != 0 && (version & 0xffff) == 0) {
    format_error("it is a big-endian GGUF file; take one for little-endian machines");
  }
  format_error("it is of version {} of GGUF, and only 2 and 3 are read: convert the model anew",
               version);
}

void check_complete(const GgufMetadata& metadata) {
  const auto parts = metadata.get<int64_t>("split.count").value_or(1);
  if (parts <= 1) return;
  refuse_file(metadata.path(),
              fmt::format("is one of {} parts of a model: join them with `llama-gguf-split --merge "
                          "FIRST OUT`, where FIRST ends in -00001-of-{:05}.gguf",
                          parts, parts));
}

// What is no model although it has a model's names.
void check_is_model(const GgufMetadata& metadata) {
  const auto type = metadata.get<std::string>("general.type").value_or("model");
  const auto architecture = metadata.get<std::string>("general.architecture").value_or("");
  if (type == "adapter") {
    refuse_file(metadata.path(),
                "is an adapter (LoRA), not a model: merge it into its base model with "
                "`llama-export-lora -m BASE --lora ADAPTER -o OUT`, and give that file");
  }
  if (type == "imatrix") {
    refuse_file(metadata.path(),
                "is an importance matrix (imatrix), made for quantising, not a model: give the "
                "model's own GGUF file");
  }
  if (type == "mmproj" || architecture == "clip") {
    refuse_file(metadata.path(),
                "is the picture part (mmproj) of a model, not a model: give the GGUF file of the "
                "text model; pictures are read with the .ckpt or Hugging Face's files");
  }
}

GgufFile read(Bytes file, const std::string& path) {
  Reader reader(file);
  if (as_text(reader.take(kMagic.size(), "magic")) != kMagic) {
    format_error("it begins with '{}', not 'GGUF'", printable(as_text(file).substr(0, 4)));
  }
  check_version(reader.number<uint32_t>("version"));
  const auto tensor_count = reader.number<uint64_t>("number of tensors");
  const auto key_count = reader.number<uint64_t>("number of keys");
  GgufMetadata metadata(read_values(reader, file, key_count), path);
  check_complete(metadata);
  check_is_model(metadata);
  auto tensors = read_tensors(reader, tensor_count);
  place_in_file(tensors, reader.position(), alignment_of(metadata), file.size());
  return {std::move(metadata), std::move(tensors)};
}

}  // namespace

bool is_gguf(std::span<const std::byte> file) { return as_text(file).starts_with(kMagic); }

GgufFile read_gguf(std::span<const std::byte> file, const std::string& path) {
  try {
    return read(file, path);
  } catch (const FormatError& error) {
    refuse_file(path, error.what());
  }
}

}  // namespace gemma
