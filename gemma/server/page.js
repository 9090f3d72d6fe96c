"use strict";
const $ = (id) => document.getElementById(id);
const DEFAULTS = { system: "", temperature: 1, top_p: 0.95, top_k: 64, max_tokens: "", seed: "", key: "" };

// --- What the browser keeps ----------------------------------------------------------------------

function load(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`gemma.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function save(name, value) {
  try {
    localStorage.setItem(`gemma.${name}`, JSON.stringify(value));
  } catch {
    say("The browser has no room for this conversation: it is gone when the page is closed.");
  }
}

const settings = { ...DEFAULTS, ...load("settings", {}) };
// A conversation: {title, messages: [{role, text, images, rate, cut}], error}; images are data URLs.
let conversations = load("conversations", []);
let current = null;
let answering = null; // An AbortController while an answer comes.
let model = "";
let sees = false; // The model takes images.
let images = []; // Of the next message.

function keep() {
  if (current && current.messages.length && !conversations.includes(current)) conversations.unshift(current);
  save("conversations", conversations);
  show_list();
}

// --- Texts ---------------------------------------------------------------------------------------

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// `code` and **bold** in a line. Everything is text: nothing a model says becomes markup.
function inline(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, i) => {
    if (i % 2 === 0) return part;
    return part[0] === "`" ? element("code", { textContent: part.slice(1, -1) })
                           : element("strong", { textContent: part.slice(2, -2) });
  });
}

function formatted(text) {
  const blocks = [];
  text.split(/^```/m).forEach((part, i) => {
    if (i % 2 === 1) {
      const code = part.replace(/^[^\n]*\n?/, "").replace(/\n$/, "");
      blocks.push(element("pre", { tabIndex: 0 }, element("code", { textContent: code })));
      return;
    }
    for (const paragraph of part.split(/\n{2,}/)) {
      if (paragraph.trim()) blocks.push(element("p", {}, ...inline(paragraph.replace(/^\n+|\n+$/g, ""))));
    }
  });
  return blocks;
}

// --- What is shown -------------------------------------------------------------------------------

function say(text) {
  $("state").textContent = text;
}

function tool(name, action) {
  const button = element("button", { type: "button", textContent: name, disabled: answering !== null });
  button.onclick = action;
  return button;
}

function shown_images(urls) {
  return urls.map((url, i) => element("img", { src: url, alt: `Image ${i + 1}` }));
}

// Those of the next message.
function show_images() {
  $("images").hidden = !images.length;
  $("images").replaceChildren(...shown_images(images).map((image, i) => {
    const remove = element("button", { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `Remove image ${i + 1}`);
    remove.onclick = () => {
      images.splice(i, 1);
      show_images();
      $("input").focus();
    };
    return element("span", {}, image, remove);
  }));
}

function show_message(message, index) {
  const text = element("div", { className: "text" });
  text.append(...(message.role === "user" ? [element("p", { textContent: message.text })] : formatted(message.text)));
  const tools = element("div", { className: "tools" });
  if (message.role === "user") tools.append(tool("Edit", () => edit(index)));
  tools.append(tool("Copy", () => navigator.clipboard?.writeText(message.text)));
  if (message.role === "assistant" && index === current.messages.length - 1) tools.append(tool("Regenerate", () => regenerate(index)));
  if (message.rate) tools.append(element("span", { className: "quiet", textContent: message.rate }));
  const who = element("span", { className: "hidden-label", textContent: message.role === "user" ? "You:" : "Model:" });
  const parts = [who, text, tools];
  if (message.images?.length) parts.splice(1, message.text ? 0 : 1, element("div", { className: "images" }, ...shown_images(message.images)));
  return element("article", { className: `message ${message.role}` }, ...parts);
}

function show() {
  const log = $("log");
  log.replaceChildren(...current.messages.map(show_message));
  if (!current.messages.length) {
    log.append(element("p", { className: "empty quiet", textContent: "Say something to begin." }));
  }
  if (current.error) {
    const again = tool("Try again", () => regenerate(current.messages.length));
    log.append(element("div", { className: "error", role: "alert" }, `${current.error} `, again));
  }
  $("send").hidden = answering !== null;
  $("stop").hidden = answering === null;
  log.scrollTop = log.scrollHeight;
}

function show_list() {
  $("list").replaceChildren(...conversations.map((conversation) => {
    const open = element("button", { type: "button", textContent: conversation.title, title: conversation.title });
    open.setAttribute("aria-current", conversation === current);
    open.onclick = () => start(conversation);
    const remove = element("button", { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `Delete ${conversation.title}`);
    remove.onclick = () => {
      conversations = conversations.filter((other) => other !== conversation);
      if (conversation === current) start(null);
      save("conversations", conversations);
      show_list();
    };
    return element("li", {}, open, remove);
  }));
}

function start(conversation) {
  answering?.abort();
  current = conversation ?? { title: "", messages: [] };
  close_menu();
  show_list();
  show();
  $("input").focus();
}

// --- Answers -------------------------------------------------------------------------------------

function headers() {
  const made = { "Content-Type": "application/json" };
  if (settings.key) made.Authorization = `Bearer ${settings.key}`;
  return made;
}

function content_of({ text, images }) {
  if (!images?.length) return text;
  return [...images.map((url) => ({ type: "image_url", image_url: { url } })), { type: "text", text }];
}

function request_body(messages) {
  const said = messages.map((message) => ({ role: message.role, content: content_of(message) }));
  if (settings.system) said.unshift({ role: "system", content: settings.system });
  const body = { model, messages: said, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed"]) {
    if (settings[name] !== "") body[name] = Number(settings[name]);
  }
  return JSON.stringify(body);
}

async function explain(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status} ${response.statusText}.`;
  }
}

// Calls take(object) for each event of a stream.
async function read_events(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line.startsWith("data: [DONE]")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      take(event);
    }
  }
}

async function answer() {
  const conversation = current;
  const abort = (answering = new AbortController());
  delete conversation.error;
  const message = { role: "assistant", text: "" };
  show();
  const view = element("div", { className: "text cursor" });
  $("log").append(element("article", { className: "message assistant" }, view));
  const begun = performance.now();
  let first = 0;
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers: headers(), body: request_body(conversation.messages), signal: abort.signal,
    });
    if (!response.ok) throw new Error(await explain(response));
    await read_events(response, ({ choices, usage }) => {
      const part = choices[0]?.delta?.content;
      if (part) {
        first ||= performance.now();
        message.text += part;
        const log = $("log");
        const is_at_end = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
        if (current === conversation) {
          view.replaceChildren(...formatted(message.text));
          if (is_at_end) log.scrollTop = log.scrollHeight;
        }
      }
      if (usage?.completion_tokens) message.rate = rate(usage, begun, first || performance.now());
      if (choices[0]?.finish_reason === "length") message.cut = true;
    });
    if (message.cut && message.rate) message.rate += ", cut at the most tokens";
  } catch (error) {
    if (error.name !== "AbortError") {
      conversation.error = error instanceof TypeError ? "The server cannot be reached." : error.message;
    }
  }
  if (message.text) conversation.messages.push(message);
  if (answering === abort) answering = null;
  if (conversation === current) {
    keep();
    show();
  }
  if (!conversation.error) say("");
}

function rate(usage, begun, first) {
  const seconds = (performance.now() - first) / 1000;
  const wait = (first - begun) / 1000;
  const speed = usage.completion_tokens > 1 && seconds > 0 ? `${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s, ` : "";
  return `${speed}${usage.completion_tokens} tokens, first after ${wait.toFixed(2)} s`;
}

function send() {
  const text = $("input").value.trim();
  if ((!text && !images.length) || answering || $("send").disabled) return;
  current.messages.push({ role: "user", text, images });
  current.title ||= text.slice(0, 60) || "Image";
  $("input").value = "";
  images = [];
  show_images();
  fit_input();
  keep();
  answer();
}

function regenerate(index) {
  if (answering) return;
  current.messages.length = index;
  answer();
}

function edit(index) {
  if (answering) return;
  $("input").value = current.messages[index].text;
  images = current.messages[index].images ?? [];
  show_images();
  current.messages.length = index;
  delete current.error;
  fit_input();
  show();
  $("input").focus();
}

// --- Input ---------------------------------------------------------------------------------------

function fit_input() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

// A small PNG or JPEG file goes as it is; others are drawn again, so that the browser has room for
// the conversation. The model sees squares of 896 pixels.
async function read_image(file) {
  if (/^image\/(png|jpeg)$/.test(file.type) && file.size <= 1_000_000) {
    return new Promise((resolve, reject) => {
      const reader = Object.assign(new FileReader(), { onload: () => resolve(reader.result), onerror: reject });
      reader.readAsDataURL(file);
    });
  }
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, 1792 / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff"; // JPEG has no transparency.
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.toDataURL("image/jpeg", 0.9);
}

async function add_images(files) {
  for (const file of files) {
    try {
      images.push(await read_image(file));
      say("");
    } catch {
      say(`${file.name} is no image that the browser can read.`);
    }
  }
  show_images();
  $("input").focus();
}

function close_menu() {
  document.body.classList.remove("menu");
  $("menu").setAttribute("aria-expanded", "false");
}

$("composer").onsubmit = (event) => {
  event.preventDefault();
  send();
};
$("input").oninput = fit_input;
$("input").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
};
$("attach").onclick = () => $("file").click();
$("file").onchange = () => {
  add_images([...$("file").files]);
  $("file").value = ""; // The same file can be chosen again.
};
$("input").onpaste = (event) => {
  const files = [...event.clipboardData.files];
  if (!sees || !files.length) return;
  event.preventDefault();
  add_images(files);
};
document.ondragover = (event) => {
  if (!sees || !event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  $("box").classList.add("dropping");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) $("box").classList.remove("dropping");
};
document.ondrop = (event) => {
  $("box").classList.remove("dropping");
  if (!sees || !event.dataTransfer.files.length) return;
  event.preventDefault();
  add_images([...event.dataTransfer.files]);
};
$("stop").onclick = () => answering?.abort();
document.onkeydown = (event) => {
  if (event.key !== "Escape") return;
  answering?.abort();
  close_menu();
};
$("new").onclick = () => start(null);
$("menu").onclick = () => {
  const open = document.body.classList.toggle("menu");
  $("menu").setAttribute("aria-expanded", open);
};
$("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--back").trim() !== "#ffffff";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  save("theme", document.documentElement.dataset.theme);
};

// --- Settings ------------------------------------------------------------------------------------

const fields = $("settings").querySelector("form").elements;
function fill_settings() {
  for (const name of Object.keys(DEFAULTS)) fields[name].value = settings[name];
}
$("open-settings").onclick = () => {
  fill_settings();
  $("settings").showModal();
};
$("defaults").onclick = () => {
  Object.assign(settings, DEFAULTS, { key: settings.key });
  fill_settings();
};
$("settings").onclose = () => {
  for (const name of Object.keys(DEFAULTS)) settings[name] = fields[name].value;
  save("settings", settings);
  find_model();
};

// --- Beginning -----------------------------------------------------------------------------------

async function find_model() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.ok) {
      const [first] = (await response.json()).data;
      model = first.id;
      $("model").textContent = document.title = model;
      if (first.capabilities) {
        sees = first.capabilities.includes("vision");
        $("attach").hidden = !sees;
        $("send").disabled = !first.capabilities.includes("completion");
        return say($("send").disabled ? "This model makes embeddings; it does not chat." : "");
      }
      say("The model is being loaded.");
    } else {
      say(await explain(response));
      if (response.status === 401) return;
    }
  } catch {
    say("The server cannot be reached.");
  }
  setTimeout(find_model, 1000);
}

const theme = load("theme", null);
if (theme) document.documentElement.dataset.theme = theme;
start(null);
find_model();
