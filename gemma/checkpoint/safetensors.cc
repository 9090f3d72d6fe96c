#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/foreign_format.h>
#include <gemma/checkpoint/safetensors.h>

namespace gemma {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // The format's own limit.
constexpr uint64_t kMaxElements = uint64_t{1} << 48;
constexpr size_t kMaxTensors = size_t{1} << 18;
constexpr size_t kMaxDims = 8;
constexpr std::string_view kMetadata = "__metadata__";

struct DtypeName {
  std::string_view name;
  c10::ScalarType dtype;
};

constexpr std::array kDtypes{
    DtypeName{"F64", c10::ScalarType::Double},
    DtypeName{"F32", c10::ScalarType::Float},
    DtypeName{"F16", c10::ScalarType::Half},
    DtypeName{"BF16", c10::ScalarType::BFloat16},
    DtypeName{"I64", c10::ScalarType::Long},
    DtypeName{"I32", c10::ScalarType::Int},
    DtypeName{"I16", c10::ScalarType::Short},
    DtypeName{"I8", c10::ScalarType::Char},
    DtypeName{"U8", c10::ScalarType::Byte},
    DtypeName{"BOOL", c10::ScalarType::Bool},
    DtypeName{"C64", c10::ScalarType::ComplexFloat},
    DtypeName{"U16", c10::ScalarType::UInt16},
    DtypeName{"U32", c10::ScalarType::UInt32},
    DtypeName{"U64", c10::ScalarType::UInt64},
    DtypeName{"F8_E4M3", c10::ScalarType::Float8_e4m3fn},
    DtypeName{"F8_E5M2", c10::ScalarType::Float8_e5m2},
    DtypeName{"F8_E8M0", c10::ScalarType::Float8_e8m0fnu},
};

// What the header says of one tensor; absent until it was said.
struct Description {
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape, data_offsets;
};

// Sees the JSON as a stream: no tree is built, so neither its depth nor its breadth costs anything.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  // In the order of the header.
  const std::vector<std::pair<std::string, Description>>& tensors() const { return tensors_; }

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a fraction"); }
  bool binary(binary_t&) override { return other("binary"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (numbers_ == nullptr) return other("a number");
    if (numbers_->size() == kMaxDims) {
      format_error("tensor '{}': its {} has more than {} numbers", tensor(), field_, kMaxDims);
    }
    numbers_->push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) return true;
    if (depth_ != 2 || field_ != "dtype") return other("a string");
    auto& dtype = tensors_.back().second.dtype;
    if (dtype) twice();
    dtype = std::move(value);
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) {
      begin_entry(std::move(value));
    } else if (!in_metadata_) {
      field_ = std::move(value);
    }
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ > 1) other("an object");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_) return other("an array");
    auto& description = tensors_.back().second;
    if (field_ != "shape" && field_ != "data_offsets") return other("an array");
    if (numbers_ != nullptr) return other("an array");
    auto& numbers = field_ == "shape" ? description.shape : description.data_offsets;
    if (numbers) twice();
    numbers_ = &numbers.emplace();
    return true;
  }
  bool end_array() override {
    numbers_ = nullptr;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    format_error("its header is not JSON (at byte {}): download it again", position);
  }

 private:
  std::string tensor() const { return printable(tensors_.back().first); }

  void begin_entry(std::string name) {
    in_metadata_ = name == kMetadata;
    field_.clear();
    const auto [known, is_new] = names_.try_emplace(name, tensors_.size());
    if (!is_new) format_error("its header has '{}' twice: which one is meant?", printable(name));
    if (in_metadata_) return;
    if (tensors_.size() == kMaxTensors) format_error("it has more than {} tensors", kMaxTensors);
    tensors_.emplace_back(std::move(name), Description{});
  }

  [[noreturn]] void twice() const {
    format_error("tensor '{}' has two \"{}\": which one is meant?", tensor(), printable(field_));
  }

  // Everything that is not what the format has in its place.
  bool other(std::string_view what) const {
    if (depth_ == 0) format_error("its header is {}, not an object", what);
    if (in_metadata_) format_error("its \"{}\" holds {}, not strings alone", kMetadata, what);
    if (depth_ == 1) format_error("tensor '{}' is {}, not an object", tensor(), what);
    format_error("tensor '{}': its \"{}\" {} {}, which the format does not have there", tensor(),
                 printable(field_), numbers_ == nullptr ? "is" : "holds", what);
  }

  std::vector<std::pair<std::string, Description>> tensors_;
  std::map<std::string, size_t> names_;       // All keys of the header.
  std::string field_;                         // The key within the tensor.
  std::vector<uint64_t>* numbers_ = nullptr;  // In an array: where its numbers go.
  size_t depth_ = 0;                          // Of objects.
  bool in_metadata_ = false;
};

c10::ScalarType dtype_of(std::string_view tensor, std::string_view name) {
  for (const auto& known : kDtypes) {
    if (known.name == name) return known.dtype;
  }
  format_error(
      "tensor '{}' has dtype '{}', which this does not read: take the model in bfloat16, float16 "
      "or float32",
      printable(tensor), printable(name));
}

// Strides of a contiguous tensor, and its number of elements.
std::pair<std::vector<int64_t>, uint64_t> strides_of(std::string_view tensor,
                                                     const std::vector<uint64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  uint64_t span = 1;  // As if sizes of 0 were 1: LibTorch multiplies the others too.
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = static_cast<int64_t>(span);
    const auto size = std::max<uint64_t>(shape[d], 1);
    if (size > kMaxElements || span > kMaxElements / size) {
      format_error("tensor '{}' has more than 2^48 elements: the file is damaged",
                   printable(tensor));
    }
    span *= size;
  }
  return {strides, std::ranges::find(shape, 0U) == shape.end() ? span : 0};
}

TensorEntry make_entry(const std::string& name, const Description& tensor, uint64_t data_bytes) {
  for (const auto& [field, is_there] :
       {std::pair{"dtype", tensor.dtype.has_value()}, std::pair{"shape", tensor.shape.has_value()},
        std::pair{"data_offsets", tensor.data_offsets.has_value()}}) {
    if (!is_there) format_error("tensor '{}' has no \"{}\"", printable(name), field);
  }
  const auto& offsets = *tensor.data_offsets;
  if (offsets.size() != 2) {
    format_error("tensor '{}' has {} \"data_offsets\", not its begin and end", printable(name),
                 offsets.size());
  }
  const auto dtype = dtype_of(name, *tensor.dtype);
  const auto [strides, elements] = strides_of(name, *tensor.shape);
  const auto [begin, end] = std::pair{offsets[0], offsets[1]};
  if (begin > end || end > data_bytes) {
    format_error(
        "tensor '{}' is at bytes {} to {} of {}: the download is not complete, or the file is "
        "damaged",
        printable(name), begin, end, data_bytes);
  }
  const uint64_t nbytes = elements * c10::elementSize(dtype);
  if (end - begin != nbytes) {
    format_error("tensor '{}' needs {} bytes but has {}: the file is damaged", printable(name),
                 nbytes, end - begin);
  }
  return {.name = name,
          .dtype = dtype,
          .sizes = {tensor.shape->begin(), tensor.shape->end()},
          .strides = strides,
          .offset = begin,
          .nbytes = nbytes};
}

// Each byte of the data belongs to one tensor: nothing is hidden, and nothing read twice.
void check_cover(const std::vector<TensorEntry>& tensors, uint64_t data_bytes) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {},
                    [&](size_t i) { return std::pair{tensors[i].offset, tensors[i].nbytes}; });
  uint64_t covered = 0;
  for (const size_t i : order) {
    if (tensors[i].offset != covered) {
      format_error(
          "tensor '{}' begins at byte {}, but those before it end at {}: the file is "
          "damaged",
          printable(tensors[i].name), tensors[i].offset, covered);
    }
    covered += tensors[i].nbytes;
  }
  if (covered != data_bytes) {
    format_error("it has {} bytes of data, but its tensors only {}: the file is damaged",
                 data_bytes, covered);
  }
}

uint64_t header_length(Bytes file) {
  if (file.empty()) format_error("it is empty (0 bytes): download it again");
  if (!is_safetensors(file)) {
    const std::string_view other = foreign_format(file);
    if (!other.empty()) format_error("{}", other);
  }
  const auto length = load<uint64_t>(file, 0, "the length of its header");
  if (length > kMaxHeader) {
    format_error("its header would have {} bytes, more than {}: it is no safetensors file", length,
                 kMaxHeader);
  }
  if (!fits(kLengthBytes, length, file.size())) {
    format_error("its header has {} bytes, but the file only {}: the download is not complete",
                 length, file.size());
  }
  return length;
}

std::vector<TensorEntry> read(Bytes file) {
  const uint64_t length = header_length(file);
  const std::string_view header = as_text(file.subspan(kLengthBytes, length));
  if (!header.starts_with('{')) {
    format_error("its header begins with '{}', not with a brace: it is no safetensors file",
                 printable(header.substr(0, 4)));
  }
  HeaderReader reader;
  json::sax_parse(header.begin(), header.end(), &reader);
  const uint64_t data = kLengthBytes + length;
  std::vector<TensorEntry> tensors;
  tensors.reserve(reader.tensors().size());
  for (const auto& [name, description] : reader.tensors()) {
    tensors.push_back(make_entry(name, description, file.size() - data));
  }
  if (tensors.empty()) format_error("it holds no tensors");
  check_cover(tensors, file.size() - data);
  for (auto& tensor : tensors) tensor.offset += data;
  return tensors;
}

}  // namespace

bool is_safetensors(std::span<const std::byte> file) {
  if (file.size() <= kLengthBytes) return false;
  const auto length = load<uint64_t>(file, 0, "the length of its header");
  return length <= std::min<uint64_t>(kMaxHeader, file.size() - kLengthBytes) &&
         as_text(file)[kLengthBytes] == '{';
}

std::vector<TensorEntry> read_safetensors(std::span<const std::byte> file,
                                          const std::string& path) {
  try {
    return read(file);
  } catch (const FormatError& error) {
    refuse_file(path, error.what());
  }
}

std::string_view safetensors_dtype(c10::ScalarType dtype) {
  for (const auto& known : kDtypes) {
    if (known.dtype == dtype) return known.name;
  }
  return {};
}

}  // namespace gemma
