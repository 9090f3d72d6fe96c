#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/npz.h>
#include <gemma/checkpoint/zip.h>

// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
namespace gemma {
namespace {

using namespace std::string_view_literals;

constexpr auto kArraySuffix = ".npy"sv;
constexpr auto kMagic = "\x93NUMPY"sv;
constexpr int64_t kMaxElements = int64_t{1} << 48;  // More than a process can map.
constexpr size_t kMaxDimensions = 8;                // More than any weight has.

struct DtypeRow {
  std::string_view descr;
  c10::ScalarType dtype;
  uint64_t itemsize;
};

constexpr std::array kDtypes = {
    DtypeRow{"<f4", c10::ScalarType::Float, 4},    DtypeRow{"<f2", c10::ScalarType::Half, 2},
    DtypeRow{"<V2", c10::ScalarType::BFloat16, 2}, DtypeRow{"|V2", c10::ScalarType::BFloat16, 2},
    DtypeRow{"<f8", c10::ScalarType::Double, 8},   DtypeRow{"|i1", c10::ScalarType::Char, 1},
    DtypeRow{"|u1", c10::ScalarType::Byte, 1},     DtypeRow{"|b1", c10::ScalarType::Bool, 1},
    DtypeRow{"<i2", c10::ScalarType::Short, 2},    DtypeRow{"<i4", c10::ScalarType::Int, 4},
    DtypeRow{"<i8", c10::ScalarType::Long, 8},
};

struct Header {
  std::string_view descr;
  bool is_fortran = false;
  std::vector<int64_t> shape;
};

// The dict that numpy.lib.format writes, which is Python: {'descr': '<f4', 'fortran_order': False,
// 'shape': (2, 3), }. Of Python only that much is read.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::string_view array) : rest_(text), array_(array) {}

  Header read() {
    expect('{');
    while (!take('}')) {
      const auto key = string();
      expect(':');
      value_of(key);
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    if (!is_complete()) refuse();
    return std::move(header_);
  }

 private:
  [[noreturn]] void refuse() const {
    format_error("array '{}' has a header that numpy.savez does not write: the file is damaged",
                 printable(array_));
  }

  void skip_spaces() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n"), rest_.size()));
  }

  bool take(std::string_view text) {
    skip_spaces();
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  bool take(char c) { return take(std::string_view(&c, 1)); }
  void expect(char c) {
    if (!take(c)) refuse();
  }

  std::string_view string() {
    expect('\'');
    const auto end = rest_.find('\'');
    if (end == rest_.npos) refuse();
    const auto text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return text;
  }

  void value_of(std::string_view key) {
    if (key == "descr" && header_.descr.empty()) {
      if (take('[')) {
        format_error("array '{}' has several fields, not one number an element", printable(array_));
      }
      header_.descr = string();
    } else if (key == "fortran_order" && !has_order_) {
      header_.is_fortran = take("True");
      if (!header_.is_fortran && !take("False")) refuse();
      has_order_ = true;
    } else if (key == "shape" && !has_shape_) {
      shape();
      has_shape_ = true;
    } else {
      refuse();
    }
  }

  void shape() {
    expect('(');
    int64_t elements = 1;  // As if sizes of 0 were 1: LibTorch multiplies the others too.
    while (!take(')')) {
      const int64_t size = number();
      const int64_t factor = std::max<int64_t>(size, 1);
      if (elements > kMaxElements / factor || header_.shape.size() == kMaxDimensions) refuse();
      elements *= factor;
      header_.shape.push_back(size);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
  }

  int64_t number() {
    skip_spaces();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc() || value < 0 || value > kMaxElements) refuse();
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }

  bool is_complete() {
    skip_spaces();
    return rest_.empty() && !header_.descr.empty() && has_order_ && has_shape_;
  }

  std::string_view rest_, array_;
  Header header_;
  bool has_order_ = false, has_shape_ = false;
};

const DtypeRow& dtype_of(std::string_view descr, std::string_view array) {
  const auto row = std::ranges::find(kDtypes, descr, &DtypeRow::descr);
  if (row != kDtypes.end()) return *row;
  if (descr == "|O") {
    format_error("array '{}' holds pickled Python objects, which are not read", printable(array));
  }
  format_error("array '{}' is of dtype '{}', which is not read: save it as float32 or float16",
               printable(array), printable(descr));
}

std::vector<int64_t> strides_of(const Header& header) {
  std::vector<int64_t> strides(header.shape.size());
  int64_t stride = 1;
  for (size_t i = 0; i < strides.size(); ++i) {
    const size_t d = header.is_fortran ? i : strides.size() - 1 - i;
    strides[d] = stride;
    stride *= std::max<int64_t>(header.shape[d], 1);
  }
  return strides;
}

// What stands before the header: the magic, the version, the header's length.
Bytes header_of(Bytes file, std::string_view array) {
  const std::string what = fmt::format("the header of array '{}'", printable(array));
  if (!as_text(file).starts_with(kMagic)) {
    format_error("array '{}' does not begin as a file of numpy.save does: the file is damaged",
                 printable(array));
  }
  const auto version = load<uint8_t>(file, kMagic.size(), what);
  const size_t length_at = kMagic.size() + 2;
  if (version == 1) {
    return slice(file, length_at + 2, load<uint16_t>(file, length_at, what), what);
  }
  if (version == 2 || version == 3) {
    return slice(file, length_at + 4, load<uint32_t>(file, length_at, what), what);
  }
  format_error("array '{}' is of version {} of the format, not 1 to 3", printable(array), version);
}

// The array of a file of numpy.save, which is `bytes`, at `offset` of the file that holds it.
TensorEntry read_array(Bytes bytes, uint64_t offset, std::string_view array) {
  const Bytes text = header_of(bytes, array);
  Header header = HeaderReader(as_text(text), array).read();
  const auto& [descr, dtype, itemsize] = dtype_of(header.descr, array);
  uint64_t nbytes = itemsize;
  for (const int64_t size : header.shape) nbytes *= static_cast<uint64_t>(size);
  const auto data = static_cast<uint64_t>(text.data() + text.size() - bytes.data());
  if (bytes.size() - data != nbytes) {
    format_error("array '{}' needs {} bytes but holds {}: the file is damaged; download it again",
                 printable(array), nbytes, bytes.size() - data);
  }
  auto strides = strides_of(header);
  return {.name = std::string(array),
          .dtype = dtype,
          .sizes = std::move(header.shape),
          .strides = std::move(strides),
          .offset = offset + data,
          .nbytes = nbytes};
}

std::vector<TensorEntry> read(Bytes file) {
  std::vector<TensorEntry> arrays;
  for (const ZipEntry& entry : read_zip_directory(file)) {
    if (!entry.name.ends_with(kArraySuffix)) {
      format_error("its entry '{}' is no array of NumPy: numpy.savez did not write it",
                   printable(entry.name));
    }
    const auto array =
        std::string_view(entry.name).substr(0, entry.name.size() - kArraySuffix.size());
    arrays.push_back(read_array(file.subspan(entry.offset, entry.size), entry.offset, array));
  }
  return arrays;
}

}  // namespace

bool is_npz(std::span<const std::byte> file) {
  constexpr size_t kNameSizeAt = 26, kNameAt = 30;  // Of a zip archive's first local header.
  if (file.size() < kNameAt || !as_text(file).starts_with("PK\x03\x04")) return false;
  const auto size = load<uint16_t>(file, kNameSizeAt, "header");
  return as_text(file).substr(kNameAt, size).ends_with(kArraySuffix);
}

bool is_npy(std::span<const std::byte> file) { return as_text(file).starts_with(kMagic); }

TensorEntry read_npy(std::span<const std::byte> file, const std::string& path) {
  try {
    return read_array(file, /*offset=*/0, std::filesystem::path(path).stem().string());
  } catch (const FormatError& error) {
    refuse_file(path, error.what());
  }
}

std::vector<TensorEntry> read_npz(std::span<const std::byte> file, const std::string& path) {
  try {
    return read(file);
  } catch (const FormatError& error) {
    refuse_file(path, error.what());
  }
}

}  // namespace gemma
