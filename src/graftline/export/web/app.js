// Runs the bundle's model on a picture or on the camera. model.json tells the file, its labels and its facts.
// The picture goes into the model as it is (uint8 RGB): resizing and normalising are part of the ONNX graph.

import * as ort from "./ort.wasm.min.mjs";

const MOST_CLASSES = 5;
const find = (id) => document.getElementById(id);
const page = { stage: find("stage"), view: find("view"), picture: find("picture"), camera: find("camera"), hint: find("hint"),
  file: find("file"), toggle: find("toggle-camera"), status: find("status"), loading: find("loading"),
  classes: find("classes"), time: find("time"), facts: find("facts") };
const canvas = page.picture.getContext("2d", { willReadFrequently: true });

let facts, session, stream = null, queue = Promise.resolve();

start().catch((error) => fail(`The model could not be loaded: ${error.message}`));

async function start() {
  facts = await (await get("model.json")).json();
  showFacts();
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  const model = await download(`../${facts.file}`);
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  await session.run({ image: new ort.Tensor("uint8", new Uint8Array(8 * 8 * 3), [1, 8, 8, 3]) }); // the first run is slow
  page.loading.hidden = true;
  page.file.disabled = false;
  page.toggle.disabled = !navigator.mediaDevices?.getUserMedia;
  say("Choose a picture, drop one, or use the camera.");
  state("ready");
}

async function get(address) {
  const response = await fetch(address);
  if (response.ok) return response;
  throw new Error(`${address} answered ${response.status}. Serve the whole bundle folder and open /web/ of it.`);
}

async function download(address) {
  const response = await get(address);
  const bytes = new Uint8Array(facts.bytes);
  const reader = response.body.getReader();
  let filled = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (filled + part.value.length > bytes.length) throw new Error(`${address} is not the file that was measured.`);
    bytes.set(part.value, filled);
    filled += part.value.length;
    page.loading.value = filled / bytes.length;
  }
  if (filled !== bytes.length) throw new Error(`${address} arrived incomplete.`);
  if (!(await isMeasured(bytes))) throw new Error(`${address} is not the file that was measured.`);
  return bytes;
}

// Browsers hash only on pages that came encrypted or from this machine.
async function isMeasured(bytes) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === facts.sha256;
}

// One after the other: a session runs one picture at a time.
function classify(source, width, height) {
  const turn = queue.then(() => run(source, width, height));
  queue = turn.catch(() => {});
  return turn;
}

async function run(source, width, height) {
  page.picture.width = width;
  page.picture.height = height;
  canvas.fillStyle = "white"; // as in training: transparency lies on white
  canvas.fillRect(0, 0, width, height);
  canvas.drawImage(source, 0, 0);
  const began = performance.now();
  const image = new ort.Tensor("uint8", rgb(canvas.getImageData(0, 0, width, height).data), [1, height, width, 3]);
  const { probabilities } = await session.run({ image });
  const milliseconds = performance.now() - began;
  showAnswer(Array.from(probabilities.data), milliseconds, width, height);
}

function rgb(rgba) {
  const out = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    out[to++] = rgba[from];
    out[to++] = rgba[from + 1];
    out[to++] = rgba[from + 2];
  }
  return out;
}

async function openFile(file) {
  if (!file || !session) return;
  stopCamera();
  state("working");
  let bitmap;
  try {
    // upright by its EXIF orientation, colours as stored: what Python's reader does
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    return fail(`${file.name || "That"} is not a picture this browser can read.`);
  }
  try {
    await classify(bitmap, bitmap.width, bitmap.height);
    page.picture.setAttribute("aria-label", `Your picture ${file.name}`);
    reveal(page.picture);
    state("done");
  } catch (error) {
    fail(`The model could not run on it: ${error.message}`);
  } finally {
    bitmap.close();
  }
}

async function startCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    return fail(`The camera cannot be used: ${error.message}`);
  }
  page.camera.srcObject = stream;
  await page.camera.play();
  reveal(page.camera);
  page.toggle.textContent = "Stop the camera";
  page.toggle.setAttribute("aria-pressed", "true");
  page.status.setAttribute("aria-live", "off"); // a screen reader would be told of every frame
  watch(stream);
}

async function watch(mine) {
  while (stream === mine) {
    const { videoWidth: width, videoHeight: height } = page.camera;
    try {
      if (width) await classify(page.camera, width, height);
    } catch (error) {
      stopCamera();
      return fail(`The model could not run on the camera's picture: ${error.message}`);
    }
    state("done");
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  if (stream) reveal(page.picture); // the last frame stays
  stream = null;
  page.camera.srcObject = null;
  page.toggle.textContent = "Use the camera";
  page.toggle.setAttribute("aria-pressed", "false");
  page.status.setAttribute("aria-live", "polite");
}

function reveal(element) {
  for (const other of [page.picture, page.camera, page.hint]) other.hidden = other !== element;
  page.view.classList.add("filled");
}

function showAnswer(probabilities, milliseconds, width, height) {
  const best = probabilities.map((probability, i) => ({ probability, name: facts.labels[i] }))
    .sort((a, b) => b.probability - a.probability).slice(0, MOST_CLASSES);
  page.classes.replaceChildren(...best.map(classRow));
  page.status.className = "status top";
  if (page.status.textContent !== best[0].name) page.status.textContent = best[0].name;
  page.time.textContent = `${milliseconds.toFixed(1)} ms for ${width} × ${height} pixels, resizing included`;
  page.time.hidden = false;
}

function classRow({ probability, name }) {
  const row = element("li");
  row.dataset.name = name;
  row.dataset.probability = probability;
  const bar = element("div", { className: "bar", ariaHidden: "true" });
  const fill = element("i");
  fill.style.width = `${100 * probability}%`;
  bar.append(fill);
  row.append(element("span", { className: "name" }, name), element("span", { className: "share" }, percent(probability)), bar);
  return row;
}

function showFacts() {
  const { value, low, high, n } = facts.accuracy;
  const rows = [
    ["Backbone", facts.model],
    ["File", facts.file, `${(facts.bytes / 1e6).toFixed(1)} MB, ${facts.precision}`],
    ["Data version", facts.data_version],
    ["Accuracy", percent(value), `95 % interval ${percent(low)} to ${percent(high)}, ${n} test images`],
    ["Classes", String(facts.labels.length)],
  ];
  page.facts.replaceChildren(...rows.map(([term, text, note]) => {
    const group = element("div");
    const description = element("dd", {}, text);
    if (note) description.append(element("small", {}, note));
    group.append(element("dt", {}, term), description);
    return group;
  }));
}

function element(tag, properties = {}, text = "") {
  return Object.assign(document.createElement(tag), properties, text ? { textContent: text } : {});
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function say(text) {
  page.status.className = "status";
  page.status.textContent = text;
}

function fail(text) {
  page.loading.hidden = true;
  page.classes.replaceChildren();
  page.time.hidden = true;
  page.status.className = "status bad";
  page.status.textContent = text;
  state("failed");
}

function state(name) {
  document.body.dataset.state = name;
}

page.file.addEventListener("change", () => {
  openFile(page.file.files[0]);
  page.file.value = ""; // the same file can be chosen again
});
page.toggle.addEventListener("click", () => (stream ? stopCamera() : startCamera()));
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    page.stage.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) page.stage.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  page.stage.classList.remove("over");
  openFile(event.dataTransfer.files[0]);
});
