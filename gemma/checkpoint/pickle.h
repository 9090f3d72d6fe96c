#pragma once

#include <cstdint>
#include <deque>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <c10/core/ScalarType.h>

#include <gemma/checkpoint/bytes.h>

// What torch.load(weights_only=True) reads of Python's pickle. A pickle is a program; the machine
// that runs it here has no instruction that calls anything, only ones that build the values below.
// https://docs.python.org/3/library/pickletools.html lists the whole instruction set.
namespace gemma::pickle {

/// Something that is no weight, such as a device, a set or a sparse tensor: what it holds is not
/// kept.
struct Opaque {
  std::string_view type;   // As type_name gives it.
  bool is_tensor = false;  // A tensor whose elements do not stand in a storage as they are.
};

/// The only things that a pickle may refer to by name.
struct Global {
  enum class Kind : uint8_t {
    kOrderedDict,
    kRebuildTensor,
    kRebuildTensorV3,
    kRebuildParameter,
    kRebuildFromType,
    kRebuildFromCpu,
    kParameter,
    kSize,
    kStorageType,
    kDtype,
    kOpaque,
  };
  Kind kind;
  // Of a storage type or dtype, and its width in bytes; 0 for one of parts of a byte or with
  // scales.
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  uint8_t itemsize = 0;
  const Opaque* makes = nullptr;  // What a call of kOpaque gives.
};

struct Tuple;
struct List;
struct Dict;
struct Storage;
struct Tensor;

/// Containers are pointers to what a Pickle owns: copying a Value never copies what it holds, and
/// no nesting, however deep or circular, makes a destructor recurse.
using Value = std::variant<std::monostate,
                           bool,
                           int64_t,
                           double,
                           std::string_view,
                           const Tuple*,
                           List*,
                           Dict*,
                           const Storage*,
                           const Tensor*,
                           const Opaque*,
                           Global>;

struct Tuple {
  std::vector<Value> items;
};

struct List {
  std::vector<Value> items;
};

struct Dict {
  bool is_ordered_dict = false;                // Made by collections.OrderedDict.
  std::vector<std::pair<Value, Value>> items;  // As written: of equal keys the last one counts.
  const Value* find(std::string_view key) const;
};

struct Storage {
  c10::ScalarType dtype;
  uint8_t itemsize;
  std::string_view key;  // Its bytes are the archive's record "data/<key>".
  int64_t numel;
};

/// The types are checked, the numbers are not: torch_archive.cc does that and knows the names.
struct Tensor {
  const Storage* storage;
  c10::ScalarType dtype;  // The storage's, unless that is of bytes.
  uint8_t itemsize;
  int64_t offset;        // In elements, like the strides.
  const Tuple* sizes;    // Of int64_t, kMaxDims at most.
  const Tuple* strides;  // As many.
};

inline constexpr size_t kMaxDims = 8;
// 70,000 tensors take 7 MiB; the limit bounds what a hostile file can make us allocate.
inline constexpr size_t kMaxPickleBytes = size_t{64} << 20;

class Pickle {
 public:
  Pickle() = default;
  Pickle(Pickle&&) noexcept = default;
  Pickle& operator=(Pickle&&) noexcept = default;
  Pickle(const Pickle&) = delete;
  Pickle& operator=(const Pickle&) = delete;

  Value root;
  // Deques, because a Value points at their elements.
  std::deque<Tuple> tuples;
  std::deque<List> lists;
  std::deque<Dict> dicts;
  std::deque<Storage> storages;
  std::deque<Tensor> tensors;
};

/// Strings in the result are views of `bytes`, which must outlive it.
/// Throws FormatError, which says at which byte and why.
Pickle read(Bytes bytes);

/// Python's name for the type of a value: "NoneType", "dict", ...
std::string_view type_name(const Value& value);

}  // namespace gemma::pickle
