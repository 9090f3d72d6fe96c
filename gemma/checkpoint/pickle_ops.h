#pragma once

#include <cstdint>
#include <string_view>

// https://docs.python.org/3/library/pickletools.html
namespace gemma::pickle {

/// What a tensor file is made of, and what may stand beside the tensors.
enum class Op : uint8_t {
  kMark = '(',
  kEmptyTuple = ')',
  kStop = '.',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kEmptyList = ']',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  // Protocols 4 and 5, for torch.save(..., pickle_protocol=4).
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

struct RefusedOp {
  uint8_t code;
  std::string_view name;
};

/// Named in messages because they are how a pickle runs code, or what other programs write.
inline constexpr RefusedOp kRefusedOps[] = {
    {'0', "POP"},          {'1', "POP_MARK"},
    {'2', "DUP"},          {'F', "FLOAT"},
    {'I', "INT"},          {'L', "LONG"},
    {'P', "PERSID"},       {'S', "STRING"},
    {'T', "BINSTRING"},    {'V', "UNICODE"},
    {'d', "DICT"},         {'g', "GET"},
    {'i', "INST"},         {'l', "LIST"},
    {'o', "OBJ"},          {'p', "PUT"},
    {0x82, "EXT1"},        {0x83, "EXT2"},
    {0x84, "EXT4"},        {0x92, "NEWOBJ_EX"},
    {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"},
};

constexpr std::string_view refused_op_name(uint8_t code) {
  for (const RefusedOp& op : kRefusedOps) {
    if (op.code == code) return op.name;
  }
  return "unknown";
}

}  // namespace gemma::pickle
