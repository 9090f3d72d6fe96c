#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include <gemma/checkpoint/bytes.h>
#include <gemma/checkpoint/errors.h>
#include <gemma/checkpoint/foreign_format.h>
#include <gemma/checkpoint/pickle.h>
#include <gemma/checkpoint/torch_archive.h>
#include <gemma/checkpoint/zip.h>

namespace gemma {
namespace {

// More than a process can map. Where every number of a tensor, and what sizes and strides span, is
// below it, no product overflows 64 bits, neither here nor in LibTorch.
constexpr int64_t kMaxElements = int64_t{1} << 48;
constexpr size_t kMaxTensors = size_t{1} << 18;

constexpr size_t kMaxNameBytes = 1024;  // Names are compared, as often as the file repeats them.

constexpr std::string_view kPickleSuffix = "/data.pkl";

// Where a file may have its dict of tensors, if that is not the whole file: gemma_pytorch's key and
// that of Lightning.
constexpr std::string_view kStateDictKeys[] = {"model_state_dict", "state_dict"};

class Archive {
 public:
  explicit Archive(Bytes file) : file_(file), entries_(read_zip_directory(file)) {
    for (const ZipEntry& entry : entries_) by_name_.emplace(entry.name, &entry);
    find_root();
    check_kind();
  }

  Archive(const Archive&) = delete;  // The map points at the entries.
  Archive& operator=(const Archive&) = delete;

  const ZipEntry* find(std::string_view record) const {
    const auto found = by_name_.find(fmt::format("{}{}", root_, record));
    return found == by_name_.end() ? nullptr : found->second;
  }
  Bytes bytes(const ZipEntry& entry) const { return file_.subspan(entry.offset, entry.size); }
  Bytes pickle() const { return bytes(*find("data.pkl")); }

 private:
  // The folder all records are in is named after the file that was first written.
  void find_root() {
    std::optional<std::string_view> root;
    for (const ZipEntry& entry : entries_) {
      std::string_view name = entry.name;
      if (!name.ends_with(kPickleSuffix)) continue;
      name.remove_suffix(kPickleSuffix.size() - 1);
      if (root) {
        format_error("it has two data.pkl, in '{}' and '{}': which one is meant?", printable(*root),
                     printable(name));
      }
      root = name;
    }
    if (!root) format_error("it is a zip archive without data.pkl, so torch.save did not write it");
    root_ = *root;
  }

  void check_kind() const {
    const std::string code = root_ + "code/";
    const bool has_code = std::ranges::any_of(
        entries_, [&code](const ZipEntry& entry) { return entry.name.starts_with(code); });
    if (has_code || find("constants.pkl") != nullptr) {
      format_error(
          "it is a TorchScript archive (torch.jit.save), a program with its weights: in Python, "
          "torch.save(torch.jit.load(...).state_dict(), ...)");
    }
    const ZipEntry* const order = find("byteorder");
    if (order != nullptr && as_text(bytes(*order)) != "little") {
      format_error(
          "its byte order is '{}', not 'little': load and save it on a little-endian machine",
          printable(as_text(bytes(*order))));
    }
  }

  Bytes file_;
  std::vector<ZipEntry> entries_;
  std::map<std::string_view, const ZipEntry*> by_name_;
  std::string root_;  // With the slash.
};

int64_t number(const pickle::Value& value) { return std::get<int64_t>(value); }

void check_range(int64_t value, std::string_view what, std::string_view tensor) {
  if (value < 0 || value > kMaxElements) {
    format_error("tensor '{}': its {} is {}, not 0 to 2^48: the file is damaged", printable(tensor),
                 what, value);
  }
}

const ZipEntry& find_record(const Archive& archive,
                            const pickle::Storage& storage,
                            std::string_view tensor) {
  check_range(storage.numel, "storage size", tensor);
  const std::string name = fmt::format("data/{}", storage.key);
  const ZipEntry* const record = archive.find(name);
  if (record == nullptr) {
    format_error(
        "tensor '{}' needs record '{}', which the archive does not have: the file is damaged",
        printable(tensor), printable(name));
  }
  const uint64_t needed = static_cast<uint64_t>(storage.numel) * storage.itemsize;
  if (record->size != needed) {
    format_error(
        "tensor '{}' needs {} bytes but its record '{}' holds {}: the file is damaged; download it "
        "again",
        printable(tensor), needed, printable(name), record->size);
  }
  return *record;
}

void check_numbers(const pickle::Tensor& view, std::string_view tensor) {
  check_range(view.offset, "offset", tensor);
  for (const pickle::Value& stride : view.strides->items) {
    check_range(number(stride), "stride", tensor);
  }
  int64_t elements = 1;  // As if sizes of 0 were 1: LibTorch multiplies the others too.
  for (const pickle::Value& item : view.sizes->items) {
    check_range(number(item), "size", tensor);
    const int64_t size = std::max<int64_t>(number(item), 1);
    if (elements > kMaxElements / size) {
      format_error("tensor '{}' has more than 2^48 elements: the file is damaged",
                   printable(tensor));
    }
    elements *= size;
  }
}

// How many of the `elements` of its storage a view spans, from its first to its last; 0 when it has
// none.
int64_t span_of(const pickle::Tensor& view, int64_t elements, std::string_view tensor) {
  check_numbers(view, tensor);
  const auto& sizes = view.sizes->items;
  const bool is_empty =
      std::ranges::any_of(sizes, [](const pickle::Value& size) { return number(size) == 0; });
  // Elements after the first one. An empty slice may begin anywhere: x[5:] of 3 elements.
  const int64_t available = is_empty ? kMaxElements : elements - view.offset - 1;
  int64_t room = available;
  for (size_t d = 0; d < sizes.size() && room >= 0; ++d) {
    const int64_t steps = std::max<int64_t>(number(sizes[d]), 1) - 1;
    const int64_t stride = number(view.strides->items[d]);
    room = stride != 0 && steps > room / stride ? -1 : room - steps * stride;
  }
  if (room < 0) {
    format_error("tensor '{}' reaches past the {} elements of its storage: the file is damaged",
                 printable(tensor), elements);
  }
  return is_empty ? 0 : available - room + 1;
}

std::vector<int64_t> to_vector(const pickle::Tuple& numbers) {
  std::vector<int64_t> values;
  values.reserve(numbers.items.size());
  for (const pickle::Value& value : numbers.items) values.push_back(number(value));
  return values;
}

TensorEntry make_entry(const Archive& archive, std::string_view name, const pickle::Tensor& view) {
  const ZipEntry& record = find_record(archive, *view.storage, name);
  const uint64_t itemsize = view.itemsize;
  const auto elements = static_cast<int64_t>(record.size / itemsize);
  const auto span = static_cast<uint64_t>(span_of(view, elements, name));
  const uint64_t begin = span == 0 ? 0 : static_cast<uint64_t>(view.offset);
  return {.name = std::string(name),
          .dtype = view.dtype,
          .sizes = to_vector(*view.sizes),
          .strides = to_vector(*view.strides),
          .offset = record.offset + begin * itemsize,
          .nbytes = span * itemsize};
}

const pickle::Dict& top_of(const pickle::Pickle& pickle) {
  const auto* const top = std::get_if<pickle::Dict*>(&pickle.root);
  if (top == nullptr) {
    format_error("it holds a {}, not a dict of tensors: save model.state_dict()",
                 pickle::type_name(pickle.root));
  }
  return **top;
}

const pickle::Dict& find_state_dict(const pickle::Dict& top) {
  for (const auto key : kStateDictKeys) {
    const pickle::Value* const inner = top.find(key);
    if (inner == nullptr) continue;
    if (const auto* const dict = std::get_if<pickle::Dict*>(inner)) return **dict;
    format_error("its '{}' is a {}, not a dict of tensors", key, pickle::type_name(*inner));
  }
  return top;
}

std::optional<std::string_view> find_config(const pickle::Dict& top) {
  const pickle::Value* const config = top.find(kConfigKey);
  if (config == nullptr || !std::holds_alternative<std::string_view>(*config)) return std::nullopt;
  return std::get<std::string_view>(*config);
}

bool is_tensor(const pickle::Value& value) {
  return std::holds_alternative<const pickle::Tensor*>(value);
}

// By its first value, so that asking costs nothing, whatever the file repeats.
bool begins_with_tensor(const pickle::Value& value) {
  if (const auto* const dict = std::get_if<pickle::Dict*>(&value)) {
    return !(*dict)->items.empty() && is_tensor((*dict)->items.front().second);
  }
  const auto* const list = std::get_if<pickle::List*>(&value);
  return list != nullptr && !(*list)->items.empty() && is_tensor((*list)->items.front());
}

// What else a dict of tensors may hold: anything that is not, or has not, tensors that could be
// meant.
void check_beside(std::string_view name, const pickle::Value& value) {
  const auto* const* const opaque = std::get_if<const pickle::Opaque*>(&value);
  if (opaque != nullptr && (*opaque)->is_tensor) {
    format_error("its '{}' is a {}, which is not read: save it as a plain tensor of floats",
                 printable(name), (*opaque)->type);
  }
  if (begins_with_tensor(value)) {
    format_error(
        "its '{}' is a {} of tensors, which is read only under the name 'model_state_dict' or "
        "'state_dict': in Python, torch.save(the dict of the model's tensors, ...)",
        printable(name), pickle::type_name(value));
  }
}

// As Python's dict: of equal keys the first keeps its place and the last its value.
std::vector<std::pair<std::string_view, const pickle::Value*>> named_values(
    const pickle::Dict& dict) {
  std::vector<std::pair<std::string_view, const pickle::Value*>> values;
  std::map<std::string_view, size_t> places;
  for (const auto& [key, value] : dict.items) {
    const auto* const name = std::get_if<std::string_view>(&key);
    const bool is_name = name != nullptr && name->size() <= kMaxNameBytes;
    if (!is_name && !is_tensor(value)) continue;
    if (name == nullptr) {
      format_error("its dict of tensors has a key of type {}, not a name", pickle::type_name(key));
    }
    if (!is_name) {
      format_error("a tensor has a name of {} bytes: '{}'", name->size(), printable(*name));
    }
    const auto [place, is_new] = places.try_emplace(*name, values.size());
    if (is_new) {
      values.emplace_back(*name, &value);
    } else {
      values[place->second].second = &value;
    }
  }
  return values;
}

[[noreturn]] void refuse_without_tensors(const pickle::Dict& dict) {
  if (dict.find("param_groups") != nullptr) {
    format_error(
        "it is the state of an optimizer, not a model's weights: give the file of those, from "
        "model.state_dict()");
  }
  constexpr size_t kShown = 3;
  std::string keys;
  for (size_t i = 0; i < std::min(dict.items.size(), kShown); ++i) {
    const auto* const text = std::get_if<std::string_view>(&dict.items[i].first);
    if (text != nullptr)
      keys += fmt::format("{} '{}'", keys.empty() ? ", but" : ",", printable(*text));
  }
  format_error("it holds no tensors{}: save model.state_dict()", keys);
}

TorchArchive read(Bytes file) {
  if (file.empty()) format_error("it is empty (0 bytes): download it again");
  if (!as_text(file).starts_with("PK")) {
    const std::string_view other = foreign_format(file);
    if (!other.empty()) format_error("{}", other);
    format_error("it begins with '{}', not 'PK': torch.save did not write it",
                 printable(as_text(file).substr(0, 4)));
  }
  const Archive archive(file);
  const pickle::Pickle pickle = pickle::read(archive.pickle());
  std::vector<TensorEntry> tensors;
  const pickle::Dict& top = top_of(pickle);
  const pickle::Dict& state_dict = find_state_dict(top);
  for (const auto& [name, value] : named_values(state_dict)) {
    const auto* const tensor = std::get_if<const pickle::Tensor*>(value);
    if (tensor == nullptr) {
      check_beside(name, *value);
      continue;
    }
    if (tensors.size() == kMaxTensors) format_error("it has more than {} tensors", kMaxTensors);
    tensors.push_back(make_entry(archive, name, **tensor));
  }
  if (tensors.empty()) refuse_without_tensors(state_dict);
  return {std::move(tensors), find_config(top)};
}

}  // namespace

TorchArchive read_torch_archive(std::span<const std::byte> file, const std::string& path) {
  try {
    return read(file);
  } catch (const FormatError& error) {
    refuse_file(path, error.what());
  }
}

}  // namespace gemma
