"use strict";

// Sends each picture as the form would, one after another, and puts the results of the answers on this page.
{
  const at = (id) => document.getElementById(id);
  const [form, input, key, results, status, progress, stop] =
    ["form", "image", "key", "results", "status", "progress", "stop"].map(at);
  const texts = JSON.parse(at("texts").textContent);
  const mib = Number(form.dataset.mib);
  let running = null;

  const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  function alertOf(text) {
    const paragraph = document.createElement("p"), strong = document.createElement("strong");
    paragraph.setAttribute("role", "alert");
    strong.textContent = text;
    paragraph.append(strong);
    return [paragraph];
  }

  // What is done is seen in the results: then the status is for those who hear the page.
  function show(busy, text, seen = true) {
    progress.hidden = !busy;
    status.classList.toggle("unseen", !seen);
    results.setAttribute("aria-busy", String(busy));
    status.textContent = text;
  }

  async function answered(file, signal) {
    if (file.size > mib * 2 ** 20) return alertOf(filled(texts.file_too_large, { name: file.name, mib }));
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
    return found ? [...found.children] : alertOf(filled(texts.unexpected, { status: response.status }));
  }

  async function classify(files) {
    running?.abort();
    const { signal } = (running = new AbortController());
    results.replaceChildren();
    for (const [index, file] of files.entries()) {
      show(true, files.length === 1 ? texts.busy : filled(texts.busy_of, { number: index + 1, count: files.length }));
      const nodes = await answered(file, signal);
      if (signal.aborted) return;
      results.append(...nodes);
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
    } else if (!key || key.reportValidity()) {
      classify([...files]);
    }
  }

  document.documentElement.classList.add("script");
  input.addEventListener("click", () => (input.value = "")); // else the same file could not be chosen again
  input.addEventListener("change", () => input.files.length && take(input.files));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take(input.files);
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
