#pragma once

namespace gemma::server {

/// A chat in the browser, page.html with page.css and page.js in it: one document that needs
/// nothing else but this server.
const char* page_text();

}  // namespace gemma::server
