#pragma once

#include <string>
#include <string_view>

// Server-sent events, as OpenAI's API streams them.
namespace gemma::server {

inline constexpr std::string_view kSseType = "text/event-stream; charset=utf-8";
/// A line that says nothing, to keep a connection alive.
inline constexpr std::string_view kSseComment = ": keep-alive\n\n";

/// `data` is one line.
inline std::string sse_event(std::string_view data) {
  return std::string("data: ").append(data).append("\n\n");
}

}  // namespace gemma::server
