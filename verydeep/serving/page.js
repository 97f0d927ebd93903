"use strict";

// Sends each picture as the form would, one after another, and puts the results of the answers on this page.
{
  const at = (id) => document.getElementById(id);
  const [form, input, key, results, status, progress, stop] =
    ["form", "image", "key", "results", "status", "progress", "stop"].map(at);
  const texts = JSON.parse(at("texts").textContent);
  const mib = Number(form.dataset.mib), most = mib * 2 ** 20 - 1024; // a form is a little larger than its file
  let running = null, taken = [];

  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  function made(tag, ...inside) {
    const element = document.createElement(tag);
    element.append(...inside);
    return element;
  }

  function alertOf(text) {
    const alert = made("p", made("strong", text));
    alert.setAttribute("role", "alert");
    return [alert];
  }

  // What is said of one of several pictures, without its name, gets it.
  function named(file, nodes) {
    if (nodes[0].matches("article")) return nodes;
    const article = made("article", made("h2", file.name), ...nodes);
    article.className = "result";
    return [article];
  }

  // What is done is seen in the results: then the status is for those who hear the page.
  function show(busy, text, seen = true) {
    progress.hidden = !busy;
    status.classList.toggle("unseen", !seen);
    results.setAttribute("aria-busy", String(busy));
    status.textContent = text;
  }

  async function answered(file, signal) {
    if (file.size > most) return alertOf(filled(texts.file_too_large, { name: file.name, mib }));
    let bytes;
    try {
      bytes = await file.arrayBuffer();
    } catch {
      return alertOf(filled(texts.unreadable, { name: file.name }));
    }
    const body = new FormData();
    if (key) body.set("key", key.value);
    body.set("image", new File([bytes], file.name, { type: file.type }));
    let response, text;
    try {
      response = await fetch(`${location.pathname}?part=results`, { method: "POST", body, signal });
      text = await response.text();
    } catch {
      return alertOf(texts.no_connection);
    }
    const found = new DOMParser().parseFromString(text, "text/html").getElementById("results");
    return found?.children.length ? [...found.children] : alertOf(filled(texts.unexpected, { status: response.status }));
  }

  async function classify(files) {
    running?.abort();
    const { signal } = (running = new AbortController());
    results.replaceChildren();
    for (const [index, file] of files.entries()) {
      show(true, files.length === 1 ? texts.busy : filled(texts.busy_of, { number: index + 1, count: files.length }));
      const nodes = await answered(file, signal);
      if (signal.aborted) return;
      results.append(...(files.length === 1 ? nodes : named(file, nodes)));
    }
    const only = files.length === 1 && results.firstElementChild;
    show(false, only ? only.dataset.summary ?? texts.no_result : filled(texts.done, { count: files.length }), false);
    if (results.firstElementChild.getBoundingClientRect().top > innerHeight * 0.75) results.scrollIntoView();
  }

  function take(files) {
    if (!files.length) {
      running?.abort();
      results.replaceChildren(...alertOf(texts.no_picture));
      show(false, texts.no_result, false);
    } else {
      taken = [...files]; // kept until there is a key
      if (!key || key.reportValidity()) classify(taken);
    }
  }

  document.documentElement.classList.add("script");
  input.required = false; // pictures are dropped and pasted too
  input.addEventListener("click", () => (input.value = "")); // else the same file could not be chosen again
  input.addEventListener("change", () => input.files.length && take(input.files));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take(taken.length ? taken : input.files);
  });
  stop.addEventListener("click", () => {
    running?.abort();
    show(false, texts.stopped);
    input.focus();
  });
  document.addEventListener("paste", (event) => {
    if (event.target === key) return;
    event.preventDefault();
    take(event.clipboardData.files);
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.documentElement.classList.toggle("dragging", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
}
