// The page: an image comes in, boxes are drawn on it, the model is asked, and its stages are looked at.
import { paint, pointAt } from "./draw.js";

const GONE = "The demo does not answer: does it still run in its terminal?";
const $ = (id) => document.getElementById(id);
const canvas = $("canvas"), stageSlider = $("stage"), threshold = $("threshold"), opacity = $("opacity");

let model = null;        // what the server says of it
let photo = null;        // {name, blob, bitmap}
let boxes = [];          // x, y, w, h in pixels of the image
let answer = null;       // of the model, for this photo
let maps = {};           // pictures of the answer: a head's name to a list, one a stage
let head = null;         // the description of the head that is shown
let sketch = null;       // a box that is being drawn: {from, to}
let asking = false, again = false;
let camera = null;       // its stream

// -- the model

async function start() {
  model = await (await fetch("model")).json();
  head = model.heads[0];
  $("name").textContent = model.name;
  document.title = `${model.name} – rpgmt demo`;
  const stages = model.stages === 1 ? "1 stage" : `${model.stages} stages`;
  $("summary").textContent = `${stages} · ${model.heads.map(title).join(", ").toLowerCase()}`;
  stageSlider.max = stageSlider.value = model.stages;
  for (const one of model.heads) {
    const button = element("button", title(one), { type: "button" });
    button.addEventListener("click", () => { head = one; loadMaps(); show(); });
    $("views").append(button);
  }
  $("main").hidden = false;
  show();
}

const words = (name) => name.replaceAll("_", " ");

function title({ name, kind }) {
  const text = kind === "keypoints" && name === "keypoints" ? "key points" : words(name);
  return text[0].toUpperCase() + text.slice(1);
}

// -- the image

async function usePhoto(blob, name, itsBoxes = []) {
  say("");
  if (blob.size > model.max_bytes) {
    const size = (blob.size / 2 ** 20).toFixed(0), most = model.max_bytes / 2 ** 20;
    return say(`${name} has ${size} MB, and ${most} are the most: make it smaller.`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    return say(`${name} is not an image that can be read: a PNG, a JPEG or a WebP can.`);
  }
  closeCamera();
  photo = { name, blob, bitmap };
  boxes = itsBoxes;
  answer = sketch = null;
  show();
  ask();
}

async function useExample() {
  status("Drawing the example …");
  try {
    const [png, example] = await Promise.all([fetch("example.png"), fetch("example.json")]);
    usePhoto(await png.blob(), "example.png", model.cut === "people" ? (await example.json()).boxes : []);
  } catch {
    say(GONE);
  }
}

async function openCamera() {
  say("");
  if (camera) return;
  if (!navigator.mediaDevices) {
    return say("The browser gives no camera to this address: open the page on the machine that runs it, at 127.0.0.1.");
  }
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "environment" } });
  } catch (error) {
    return say(`The camera cannot be used (${error.name}): is it there, and does the browser allow it?`);
  }
  $("video").srcObject = camera;
  await $("video").play();
  show();
}

function closeCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  $("video").srcObject = null;
  show();
}

function shoot() {
  const video = $("video"), picture = document.createElement("canvas");
  picture.width = video.videoWidth;
  picture.height = video.videoHeight;
  picture.getContext("2d").drawImage(video, 0, 0);
  picture.toBlob((blob) => usePhoto(blob, "camera.png"), "image/png");
}

// -- the question: one at a time; what changed meanwhile is asked next

async function ask() {
  if (asking) { again = true; return; }
  asking = true;
  status("Computing …");
  const timer = setInterval(showQueue, 500);
  do {
    again = false;
    await askOnce();
  } while (again);
  clearInterval(timer);
  asking = false;
  show();
}

async function askOnce() {
  const asked = photo;
  const query = boxes.length ? `?boxes=${encodeURIComponent(JSON.stringify(boxes))}` : "";
  try {
    const reply = await fetch(`ask${query}`, { method: "POST", body: asked.blob });
    const found = await reply.json();
    if (photo !== asked) return;
    say(reply.ok ? "" : found.error);
    answer = reply.ok ? found : null;
  } catch {
    say(GONE);
    answer = null;
  }
  maps = {};
  loadMaps();
  show();
}

async function showQueue() {
  const { queue } = await fetch("queue").then((reply) => reply.json()).catch(() => ({ queue: 0 }));
  const others = queue > 1 ? ` ${queue} images are in the queue.` : "";
  if (asking) status(`Computing … One image at a time.${others}`);
}

function loadMaps() {
  if (!answer || head.kind === "keypoints" || head.kind === "class" || maps[head.name]) return;
  maps[head.name] = answer.stages.map((_, k) => {
    const image = new Image();
    image.addEventListener("load", show);
    image.addEventListener("error", () => say("This map is no longer kept: choose the image again."));
    image.src = `answers/${answer.number}/${k}/${encodeURIComponent(head.name)}.png`;
    return image;
  });
}

// -- what is seen

const found = () => answer?.stages[stageSlider.value - 1] ?? null;

function scene() {
  const map = maps[head.name]?.[stageSlider.value - 1];
  const drawn = boxes.length || !model.detector ? boxes : found()?.boxes ?? [];
  return {
    photo: photo.bitmap, found: found(), head, map: answer && map?.complete && map.naturalWidth ? map : null,
    threshold: Number(threshold.value), opacity: Number(opacity.value),
    boxes: drawn, sketch: sketch && between(sketch.from, sketch.to),
  };
}

function show() {
  const looking = photo && !camera;
  $("empty").hidden = photo || camera;
  $("live").hidden = !camera;
  $("side").hidden = !looking;
  canvas.hidden = !looking;
  $("views").hidden = !looking || model.heads.length < 2;
  $("stages").hidden = !looking || !answer || model.stages < 2;
  if (!looking) return;
  drawCanvas();
  canvas.setAttribute("aria-label", `${photo.name}: ${title(head)}, stage ${stageSlider.value}`);
  $("file").textContent = `${photo.name}, ${photo.bitmap.width} × ${photo.bitmap.height}`;
  [...$("views").children].forEach((button, i) => button.setAttribute("aria-pressed", String(model.heads[i] === head)));
  $("stage-value").textContent = `${stageSlider.value} of ${model.stages}`;
  $("threshold-value").textContent = Number(threshold.value).toFixed(2);
  $("opacity-value").textContent = `${Math.round(opacity.value * 100)} %`;
  $("points").hidden = head.kind !== "keypoints" || !answer;
  $("classes").hidden = head.kind !== "class" || !answer;
  $("map").hidden = head.kind === "keypoints" || head.kind === "class" || !answer;
  $("downloads").hidden = !answer;
  showBoxes();
  if (answer) {
    if (!asking) showStatus();
    (head.kind === "keypoints" ? showPoints : head.kind === "class" ? showClasses : showLegend)();
  } else if (!asking) status("");
}

function drawCanvas() {
  const { width, height } = photo.bitmap, room = $("drop").clientWidth;
  const factor = Math.min(room / width, Math.max(240, innerHeight * 0.68) / height);
  const sharp = devicePixelRatio || 1;
  canvas.style.width = `${width * factor}px`;
  canvas.style.height = `${height * factor}px`;
  canvas.width = Math.round(width * factor * sharp);
  canvas.height = Math.round(height * factor * sharp);
  const context = canvas.getContext("2d");
  paint(context, scene(), factor * sharp);
}

function showStatus() {
  const count = found().boxes.length, people = count === 1 ? "1 person" : `${count} people`;
  const time = answer.seconds < 1 ? `${Math.round(answer.seconds * 1000)} ms` : `${answer.seconds.toFixed(1)} s`;
  const parts = [model.cut === "people" ? people : "Whole image", `all stages in ${time}`];
  if (head.kind === "keypoints") {
    const scores = found().poses[head.name].flat().map(([, , score]) => score);
    parts.splice(1, 0, `${scores.filter((score) => score >= threshold.value).length} of ${scores.length} points`);
  }
  if (maps[head.name]?.some((image) => !image.complete)) parts.push("drawing the maps …");
  status(parts.join(" · "));
}

function showBoxes() {
  const how = "Drag over the image, or tap two corners.";
  const whole = model.cut === "people" ? "Without boxes the whole image counts as one person." : "Without boxes: the whole image.";
  $("hint").textContent = `${model.detector ? "Without boxes the detector finds the people." : whole} ${how}`;
  $("undo").disabled = $("clear").disabled = boxes.length === 0;
  if ($("boxes").contains(document.activeElement) && $("boxes").children.length === boxes.length) return; // is being typed in
  $("boxes").replaceChildren(...boxes.map((box, i) => {
    const row = element("li", String(i + 1));
    box.forEach((value, side) => {
      const label = `${["x", "y", "width", "height"][side]} of box ${i + 1}`;
      const input = element("input", "", { type: "number", value, step: "any", "aria-label": label, title: label });
      input.addEventListener("change", () => {
        if (input.value !== "") changeBoxes(boxes.map((b, j) => (j === i ? b.with(side, Number(input.value)) : b)));
      });
      row.append(input);
    });
    const remove = element("button", "×", { type: "button", "aria-label": `Remove box ${i + 1}` });
    remove.addEventListener("click", () => changeBoxes(boxes.toSpliced(i, 1)));
    row.append(remove);
    return row;
  }));
}

function showPoints() {
  if (!$("all").open) return;
  const rows = found().poses[head.name].flatMap((points, person) => points.map(([x, y, score], k) => {
    const row = element("tr", "");
    row.append(...[person + 1, words(head.points[k].name), x.toFixed(1), y.toFixed(1), score.toFixed(2)].map((v) => element("td", v)));
    row.classList.toggle("low", score < threshold.value);
    return row;
  }));
  $("table").replaceChildren(...rows);
}

function showClasses() {
  const lists = found().classes[head.name].map((guesses, i, all) => {
    const list = element("div", "");
    if (all.length > 1) list.append(element("h3", `Box ${i + 1}`));
    for (const { name, probability } of guesses) {
      const row = element("div", "", { class: "guess" }), bar = element("span", ""), filled = element("i", "");
      filled.style.width = `${probability * 100}%`;
      bar.append(filled);
      row.append(element("div", words(name)), element("div", `${(probability * 100).toFixed(1)} %`), bar);
      list.append(row);
    }
    return list;
  });
  $("class-list").replaceChildren(...lists);
}

function showLegend() {
  $("map-name").textContent = title(head);
  const parts = [];
  if (head.kind === "depth") {
    const bar = element("div", "", { class: "ramp" }), ends = element("div", "", { class: "ends" });
    const [low, high] = answer.depths[head.name].map((depth) => depth.toFixed(2));
    bar.style.background = `linear-gradient(to right, ${head.ramp.join(", ")})`;
    ends.append(element("span", low), element("span", high));
    parts.push(bar, ends, element("span", head.inverse ? "1 / depth" : "in the unit of the training's labels"));
  } else if (head.kind === "normals") {
    parts.push(element("span", "red: right · green: down · blue: away from the camera"));
  } else {
    const present = answer.present[head.name].map((number) => head.classes[number]);
    for (const { name, colour } of present) {
      const entry = element("span", ""), chip = element("i", "", { class: "chip" });
      chip.style.background = colour;
      entry.append(chip, words(name));
      parts.push(entry);
    }
    if (!present.length) parts.push(element("span", `Nothing but ${words(head.classes[0].name)}.`));
  }
  $("legend").replaceChildren(...parts);
}

function say(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

function status(text) {
  if ($("status").textContent !== text) $("status").textContent = text; // read aloud, so once only
}

// Text goes in as text: names come from files and models.
function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// -- boxes: a mouse drags them; a finger, which scrolls, and a mouse that does not move give two corners

function changeBoxes(changed) {
  boxes = changed;
  show();
  ask();
}

function place(event) {
  const frame = canvas.getBoundingClientRect(), { width, height } = photo.bitmap;
  const x = (event.clientX - frame.left) / frame.width * width, y = (event.clientY - frame.top) / frame.height * height;
  return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
}

function between([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.abs(ax - bx), Math.abs(ay - by)].map((v) => Math.round(v * 10) / 10);
}

const far = (event) => press && Math.hypot(event.clientX - press.x, event.clientY - press.y) > 6;
let press = null;

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  press = { x: event.clientX, y: event.clientY, from: place(event) };
  if (event.pointerType !== "touch") canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (far(event) && event.pointerType !== "touch") sketch = { from: press.from, to: place(event) };
  else if (sketch) sketch.to = place(event);
  else return showTip(event);
  $("tip").hidden = true;
  drawCanvas();
});
canvas.addEventListener("pointerup", (event) => {
  if (!press) return;
  if (far(event) && event.pointerType === "touch") { press = null; return; }
  const corner = place(event);
  press = null;
  if (!sketch) { sketch = { from: corner, to: corner }; return drawCanvas(); }
  const box = between(sketch.from, corner);
  sketch = null;
  if (box[2] >= 1 && box[3] >= 1) changeBoxes([...boxes, box]);
  else show();
});
canvas.addEventListener("pointercancel", () => { press = null; });
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });

function showTip(event) {
  const scale = canvas.clientWidth / photo.bitmap.width, point = pointAt(scene(), ...place(event), 10 / scale);
  const tip = $("tip");
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = `${words(point.name)} ${point.score.toFixed(2)}`;
  const x = canvas.offsetLeft + point.x * scale + 12, y = canvas.offsetTop + point.y * scale - 28;
  tip.style.left = `${Math.max(4, Math.min(x, $("drop").clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}

// -- downloads

function download(blob, ending) {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: photo.name.replace(/\.\w+$/, "") + ending });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function downloadPicture() {
  const { width, height } = photo.bitmap, factor = Math.max(1, Math.round(960 / Math.max(width, height)));
  const picture = document.createElement("canvas");
  picture.width = width * factor;
  picture.height = height * factor;
  paint(picture.getContext("2d"), { ...scene(), sketch: null, boxes: [] }, factor);
  picture.toBlob((blob) => download(blob, `-${head.name}-stage-${stageSlider.value}.png`), "image/png");
}

function downloadPeople() {
  const rows = found().coco.map((row) => ({ ...row, image_id: photo.name }));
  download(new Blob([JSON.stringify(rows, null, 1)], { type: "application/json" }), `-stage-${stageSlider.value}.json`);
}

// -- what is pressed

for (const button of document.querySelectorAll(".choose")) button.addEventListener("click", () => $("input").click());
for (const button of document.querySelectorAll(".camera")) button.addEventListener("click", openCamera);
for (const button of document.querySelectorAll(".example")) button.addEventListener("click", useExample);
$("input").addEventListener("change", () => {
  const [file] = $("input").files;
  $("input").value = ""; // so that the same file can be chosen again
  if (file) usePhoto(file, file.name);
});
$("shoot").addEventListener("click", shoot);
$("close").addEventListener("click", closeCamera);
$("add").addEventListener("click", () => {
  const { width, height } = photo.bitmap;
  changeBoxes([...boxes, [width / 4, height / 8, width / 2, height * 3 / 4].map(Math.round)]);
});
$("undo").addEventListener("click", () => changeBoxes(boxes.slice(0, -1)));
$("clear").addEventListener("click", () => changeBoxes([]));
$("all").addEventListener("toggle", show);
$("png").addEventListener("click", downloadPicture);
$("json").addEventListener("click", downloadPeople);
for (const slider of [stageSlider, threshold, opacity]) slider.addEventListener("input", show);
addEventListener("resize", () => photo && show());
addEventListener("keydown", (event) => { if (event.key === "Escape" && sketch) { sketch = null; show(); } });
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) usePhoto(file, file.name);
});
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) usePhoto(file, file.name);
});

start();
