#pragma once

namespace gemma::server {

/// What is served, openapi.json, for programs that read such. tests/python/test_server_openapi.py
/// holds it and the server together.
const char* openapi_text();

}  // namespace gemma::server
