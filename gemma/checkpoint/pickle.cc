#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include <gemma/checkpoint/pickle.h>
#include <gemma/checkpoint/pickle_calls.h>
#include <gemma/checkpoint/pickle_ops.h>
#include <gemma/checkpoint/utf8.h>

namespace gemma::pickle {
namespace {

// A real file of 100,000 tensors stays below each of these by a factor of three or more.
constexpr size_t kMaxPushes = size_t{1} << 23;
constexpr size_t kMaxMemo = size_t{1} << 23;
constexpr size_t kMaxStack = size_t{1} << 20;
constexpr size_t kMaxMarks = 1000;
constexpr size_t kMaxKeyBytes = 1024;  // Of storages: they are compared as often as they come.

class Machine {
 public:
  Machine(Bytes bytes, Pickle& pickle) : bytes_(bytes), pickle_(pickle) {}

  void run() {
    try {
      start();
      for (Op op = next(); op != Op::kStop; op = next()) step(op);
      finish();
    } catch (const FormatError& error) {
      format_error("data.pkl, byte {}: {}", op_at_, error.what());
    }
  }

 private:
  // Reading.
  Bytes take(uint64_t size) {
    const Bytes taken = slice(bytes_, at_, size, "an instruction");
    at_ += size;
    return taken;
  }
  template <typename T>
  T number() {
    return load<T>(take(sizeof(T)), 0, "a number");
  }
  Op next() {
    op_at_ = at_;
    if (at_ == bytes_.size()) format_error("the pickle ends without STOP");
    return static_cast<Op>(number<uint8_t>());
  }
  std::string_view line() {
    const std::string_view rest = as_text(bytes_).substr(at_);
    const size_t size = rest.find('\n');
    if (size == std::string_view::npos) format_error("a name has no end");
    at_ += size + 1;
    return rest.substr(0, size);
  }

  // The stack. Values below the last mark are out of reach until what is above becomes one value.
  void push(Value value) {
    if (stack_.size() == kMaxStack) format_error("more than {} values on the stack", kMaxStack);
    if (++pushes_ > kMaxPushes) format_error("more than {} values", kMaxPushes);
    stack_.push_back(value);
  }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value& top() {
    if (stack_.size() <= floor()) format_error("an instruction wants a value: the stack is empty");
    return stack_.back();
  }
  Value pop() {
    const Value value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<Value> pop_to_mark() {
    if (marks_.empty()) format_error("an instruction wants a MARK, but there is none");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Value> values(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return values;
  }
  void mark() {
    if (marks_.size() == kMaxMarks) format_error("nested more than {} deep", kMaxMarks);
    marks_.push_back(stack_.size());
  }

  void start();
  void finish();
  void step(Op op);
  void step_opaque(Op op);
  void step_container(Op op);
  void step_object(Op op);
  void push_tuple(std::vector<Value> items);
  void push_tuple_of(size_t count);
  void push_string(uint64_t size);
  void push_opaque(uint64_t size, const Opaque& opaque);
  void push_long(size_t size);
  void push_float();
  void push_stack_global();
  void push_storage();
  void get(size_t index);
  void put(size_t index);
  static bool is_opaque(const Value& value);
  void append(const std::vector<Value>& items);
  void set_items(const std::vector<Value>& items);
  void build();
  void reduce();

  Bytes bytes_;
  uint64_t at_ = 0;
  uint64_t op_at_ = 0;
  Pickle& pickle_;
  std::vector<Value> stack_;
  std::vector<size_t> marks_;
  size_t pushes_ = 0;
  std::vector<std::optional<Value>> memo_;
  size_t memoized_ = 0;
  std::map<std::string_view, const Storage*> storages_;
};

void Machine::start() {
  if (bytes_.size() > kMaxPickleBytes) {
    format_error("the pickle has {} bytes, more than {}", bytes_.size(), kMaxPickleBytes);
  }
  if (next() != Op::kProto) format_error("it is not a pickle: it does not start with PROTO");
  const unsigned protocol = number<uint8_t>();
  if (protocol < 2 || protocol > 5) format_error("pickle protocol {} is not 2 to 5", protocol);
}

void Machine::finish() {
  if (!marks_.empty()) format_error("a MARK is left at STOP");
  pickle_.root = pop();
  if (!stack_.empty()) {
    format_error("{} values are left on the stack at STOP", stack_.size());
  }
}

void Machine::step(Op op) {
  switch (op) {
    case Op::kNone:
      return push(std::monostate{});
    case Op::kNewTrue:
      return push(true);
    case Op::kNewFalse:
      return push(false);
    case Op::kBinInt:
      return push(int64_t{number<int32_t>()});
    case Op::kBinInt1:
      return push(int64_t{number<uint8_t>()});
    case Op::kBinInt2:
      return push(int64_t{number<uint16_t>()});
    case Op::kLong1:
      return push_long(number<uint8_t>());
    case Op::kBinFloat:
      return push_float();
    case Op::kLong4:
      return push_long(number<uint32_t>());
    case Op::kBinUnicode:
      return push_string(number<uint32_t>());
    case Op::kShortBinUnicode:
    case Op::kShortBinString:
      return push_string(number<uint8_t>());
    case Op::kBinUnicode8:
      return push_string(number<uint64_t>());
    default:
      return step_opaque(op);
  }
}

void Machine::step_opaque(Op op) {
  switch (op) {
    case Op::kShortBinBytes:
      return push_opaque(number<uint8_t>(), kBytes);
    case Op::kBinBytes:
      return push_opaque(number<uint32_t>(), kBytes);
    case Op::kBinBytes8:
      return push_opaque(number<uint64_t>(), kBytes);
    case Op::kByteArray8:
      return push_opaque(number<uint64_t>(), kByteArray);
    case Op::kEmptySet:
      return push(&kSet);
    case Op::kAddItems:
      pop_to_mark();
      expect<const Opaque*>(top(), "what items are added to", "set");
      return;
    case Op::kFrozenSet:
      pop_to_mark();
      return push(&kFrozen);
    default:
      return step_container(op);
  }
}

void Machine::step_container(Op op) {
  switch (op) {
    case Op::kMark:
      return mark();
    case Op::kEmptyTuple:
      return push_tuple({});
    case Op::kTuple1:
      return push_tuple_of(1);
    case Op::kTuple2:
      return push_tuple_of(2);
    case Op::kTuple3:
      return push_tuple_of(3);
    case Op::kTuple:
      return push_tuple(pop_to_mark());
    case Op::kEmptyList:
      return push(&pickle_.lists.emplace_back());
    case Op::kAppend:
      return append({pop()});
    case Op::kAppends:
      return append(pop_to_mark());
    case Op::kEmptyDict:
      return push(&pickle_.dicts.emplace_back());
    case Op::kSetItem: {
      const Value value = pop();
      return set_items({pop(), value});
    }
    case Op::kSetItems:
      return set_items(pop_to_mark());
    default:
      return step_object(op);
  }
}

void Machine::step_object(Op op) {
  switch (op) {
    case Op::kBinGet:
      return get(number<uint8_t>());
    case Op::kLongBinGet:
      return get(number<uint32_t>());
    case Op::kBinPut:
      return put(number<uint8_t>());
    case Op::kLongBinPut:
      return put(number<uint32_t>());
    case Op::kMemoize:
      return put(memoized_);
    case Op::kGlobal: {
      const std::string_view module = line();
      return push(find_global(module, line()));
    }
    case Op::kStackGlobal:
      return push_stack_global();
    case Op::kBinPersId:
      return push_storage();
    case Op::kReduce:
    case Op::kNewObj:
      return reduce();
    case Op::kBuild:
      return build();
    case Op::kFrame:
      take(8);
      return;
    default:
      format_error(
          "pickle instruction 0x{:02x} ({}) is not part of a tensor file; nothing was executed",
          static_cast<uint8_t>(op), refused_op_name(static_cast<uint8_t>(op)));
  }
}

void Machine::push_tuple(std::vector<Value> items) {
  push(&pickle_.tuples.emplace_back(std::move(items)));
}

void Machine::push_tuple_of(size_t count) {
  std::vector<Value> items(count);
  while (count > 0) items[--count] = pop();
  push_tuple(std::move(items));
}

// Python has strings with surrogates, which UTF-8 has not: they are no names.
void Machine::push_string(uint64_t size) {
  const std::string_view text = as_text(take(size));
  if (is_utf8(text)) return push(text);
  if (!is_utf8(text, /*with_surrogates=*/true)) {
    format_error("a string is not UTF-8: '{}'", printable(text));
  }
  push(&kString);
}

void Machine::push_opaque(uint64_t size, const Opaque& opaque) {
  take(size);
  push(&opaque);
}

// Two's complement, little-endian, as many bytes as the value needs.
void Machine::push_long(size_t size) {
  const Bytes digits = take(size);
  if (size > sizeof(int64_t)) return push(&kInteger);
  const bool negative = size > 0 && std::to_integer<int>(digits[size - 1]) >= 0x80;
  int64_t value = negative ? -1 : 0;
  if (size > 0) std::memcpy(&value, digits.data(), size);
  push(value);
}

void Machine::push_float() {
  uint64_t bits = 0;  // The one big-endian number in a pickle.
  for (const std::byte byte : take(8)) bits = bits << 8 | std::to_integer<uint64_t>(byte);
  push(std::bit_cast<double>(bits));
}

void Machine::push_stack_global() {
  const auto name = expect<std::string_view>(pop(), "a global's name", "str");
  const auto module = expect<std::string_view>(pop(), "a global's module", "str");
  push(find_global(module, name));
}

// ('storage', torch.FloatStorage, '0', 'cpu', numel). Where it was does not matter.
void Machine::push_storage() {
  const Value tuple = pop();
  const auto& id = expect_arguments(tuple, "a persistent id", 5, 5);
  if (expect<std::string_view>(id[0], "a persistent id", "str") != "storage") {
    format_error("a persistent id is not that of a storage");
  }
  const auto type = expect<Global>(id[1], "a storage's type", "a torch storage");
  if (type.kind != Global::Kind::kStorageType) {
    format_error("a storage's type is a {}, not a torch storage", type_name(id[1]));
  }
  const auto key = expect<std::string_view>(id[2], "a storage's key", "str");
  if (key.size() > kMaxKeyBytes) format_error("a storage's key has {} bytes", key.size());
  expect<std::string_view>(id[3], "a storage's location", "str");
  const auto numel = expect<int64_t>(id[4], "a storage's element count", "int");
  const auto [known, is_new] = storages_.try_emplace(key, nullptr);
  if (is_new) {
    known->second = &pickle_.storages.emplace_back(type.dtype, type.itemsize, key, numel);
  } else if (known->second->dtype != type.dtype || known->second->numel != numel) {
    format_error("storage '{}' is described twice, differently", printable(key));
  }
  push(known->second);
}

void Machine::get(size_t index) {
  const std::optional<Value> value = index < memo_.size() ? memo_[index] : std::nullopt;
  if (!value) format_error("memo {} is read but never set", index);
  push(*value);
}

void Machine::put(size_t index) {
  // Writers count up from 0, two bytes each: an index past the pickle's size is not a writer's.
  if (index >= bytes_.size() || index >= kMaxMemo) format_error("memo {} is out of range", index);
  if (index >= memo_.size()) memo_.resize(index + 1);
  memoized_ += memo_[index] ? 0 : 1;
  memo_[index] = top();
}

bool Machine::is_opaque(const Value& value) { return std::holds_alternative<const Opaque*>(value); }

void Machine::append(const std::vector<Value>& items) {
  if (is_opaque(top())) return;
  List* const list = expect<List*>(top(), "what is appended to", "list");
  list->items.insert(list->items.end(), items.begin(), items.end());
}

void Machine::set_items(const std::vector<Value>& items) {
  if (items.size() % 2 != 0) format_error("a dict is given a key without a value");
  if (is_opaque(top())) return;
  Dict* const dict = expect<Dict*>(top(), "what items are set in", "dict");
  for (size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
}

// Sets attributes of an object, of which a tensor has none that matter here. state_dict() has one,
// `_metadata`: versions of the Python classes that made it, which Module.load_state_dict uses to
// convert old layouts. No Gemma class has any.
void Machine::build() {
  const Value state = pop();
  if (is_opaque(top()) || std::holds_alternative<const Tensor*>(top())) return;
  expect<Dict*>(state, "the state of an object", "dict");
  if (!expect<Dict*>(top(), "what state is set on", "collections.OrderedDict")->is_ordered_dict) {
    format_error("what state is set on is of type dict, not collections.OrderedDict");
  }
}

// Of a class, too: REDUCE and NEWOBJ differ only in what Python would run.
void Machine::reduce() {
  const Value arguments = pop();
  const auto function = expect<Global>(pop(), "what is called", "a function");
  push(call(pickle_, function, arguments));
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  const Value* found = nullptr;
  for (const auto& [name, value] : items) {
    const auto* const text = std::get_if<std::string_view>(&name);
    if (text != nullptr && *text == key) found = &value;
  }
  return found;
}

std::string_view type_name(const Value& value) {
  constexpr std::array<std::string_view, std::variant_size_v<Value>> kNames = {
      "NoneType", "bool", "int",     "float",  "str",    "tuple",
      "list",     "dict", "storage", "tensor", "opaque", "function"};
  if (const auto* const opaque = std::get_if<const Opaque*>(&value)) return (*opaque)->type;
  const auto* const global = std::get_if<Global>(&value);
  if (global != nullptr && global->kind == Global::Kind::kDtype) return "torch.dtype";
  return kNames[value.index()];
}

Pickle read(Bytes bytes) {
  Pickle pickle;
  Machine(bytes, pickle).run();
  return pickle;
}

}  // namespace gemma::pickle
