import { Refused, call, events, getKey, setKey } from "./stream.js";

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const url = (picture) => `data:image/png;base64,${picture}`;
let pictures = [];  // of the request: { name, url }
let shown = null;   // id of the sequence on the page
let steps = [];     // its steps: { step, view }
let running = null; // AbortController of the request in progress
let judge = "the critic";
const MODES = {
  direct: "drawn at once",
  reflection: "looked at, and mended",
  multi_step: "worked out in sub-steps",
};

// --- the sequence -------------------------------------------------------------------------------

function image(source, alt) {
  const made = new Image();
  made.alt = alt;
  made.onload = () => made.classList.toggle("small", made.naturalWidth < 256);
  made.src = source;
  return made;
}

function clear(text) {
  shown = null;
  steps = [];
  $("steps").replaceChildren();
  $("asked").textContent = text;
  $("reasoning").hidden = $("downloads").hidden = $("mode").hidden = true;
  $("sequence").hidden = $("skip").hidden = false;
}

function showPlan(reasoning, plan) {
  $("reasoning").hidden = !reasoning;
  $("reasoning").querySelector("p").textContent = reasoning ?? "";
  plan.forEach(addStep);
}

function addStep(step) {
  const view = $("step-template").content.cloneNode(true).firstElementChild;
  view.querySelector("h3").textContent =
    `Step ${step.step_number}` + (step.step_name ? `: ${step.step_name}` : "");
  view.querySelector(".text").textContent = step.auxiliary_text || step.instruction || "";
  view.querySelector(".state").textContent = step.prompt ? "waits for its turn" : "";
  const figure = view.querySelector("figure"); // holds the picture's place until it comes
  figure.hidden = !step.prompt;
  figure.ariaHidden = "true";
  view.classList.toggle("pictured", Boolean(step.prompt));
  view.querySelector(".feedback").setAttribute("aria-label", `Feedback on step ${step.step_number}`);
  $("steps").append(view);
  wireFeedback(view, step);
  steps.push({ step, view });
}

// A unified model chooses by itself how it goes about a request.
function showMode(mode) {
  $("mode").hidden = !mode;
  if (mode) $("mode").textContent = `Mode: ${mode.replace("_", "-")}, ${MODES[mode]}.`;
}

function toSequence() {
  $("sequence").scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
}

const stepOf = (number) => steps.find(({ step }) => step.step_number === number);

function showPicture({ step, view }, picture) {
  const alt = `Step ${step.step_number}: ${step.auxiliary_text || step.instruction || step.prompt}`;
  const figure = view.querySelector("figure");
  figure.replaceChildren(image(url(picture), alt));
  figure.hidden = false;
  figure.ariaHidden = null;
}

function verdict(attempt) {
  if (attempt.failure) return ["bad", `failed: ${attempt.failure}`];
  if (attempt.success === null) return ["", "not judged"];
  return attempt.success ? ["good", `✓ accepted by ${judge}`] : ["bad", `✗ sent back by ${judge}`];
}

function addTry(at, number, attempt) {
  const tries = at.view.querySelector(".tries");
  const entry = document.createElement("li");
  if (attempt.image) entry.append(image(url(attempt.image), `Attempt ${number + 1}`));
  const [kind, said] = verdict(attempt);
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = said;
  entry.append(line);
  const why = document.createElement("details");
  why.append(document.createElement("summary"));
  why.firstChild.textContent = "Prompt and reasoning";
  const next = attempt.success === false && attempt.refine_prompt !== attempt.prompt
    && `To be tried next: ${attempt.refine_prompt}`;
  for (const text of [`Prompt: ${attempt.prompt}`, attempt.reasoning, next]) {
    if (!text) continue;
    const part = document.createElement("p");
    part.textContent = text;
    why.append(part);
  }
  entry.append(why);
  tries.querySelector("ol").append(entry);
  const count = tries.querySelectorAll("li").length;
  tries.querySelector("summary").textContent = count === 1 ? "1 attempt" : `${count} attempts`;
  tries.hidden = false;
  const state = at.view.querySelector(".state");
  state.className = `state ${kind}`;
  state.textContent = said;
  return said;
}

function finish(response) {
  shown = response.id;
  showMode(response.interloom.mode);
  for (const { step, view } of steps) {
    const report = response.interloom.steps.find((one) => one.step_number === step.step_number);
    view.querySelector(".state").classList.remove("working");
    if (step.prompt && !report) view.querySelector(".state").textContent = "not made";
    view.querySelector(".feedback").hidden = !report;
  }
  $("downloads").hidden = !steps.length;
  const { images, seconds, version } = response.interloom;
  const cost = `${images} ${images === 1 ? "picture" : "pictures"}, ${seconds.toFixed(1)} s, model version ${version}`;
  const ends = {
    completed: `Done: ${cost}.`,
    incomplete: response.incomplete_details?.reason === "image_budget"
      ? `The picture budget is used up: ${cost}.` : `Cut off, as it became too long: ${cost}.`,
    failed: "",
  };
  say(ends[response.status]);
  if (response.status === "failed") problem(response.error.message);
}

function showWhole(response, text) {
  clear(text);
  showPlan(response.interloom.reasoning, response.interloom.plan ?? []);
  const made = response.output.filter((item) => item.type === "image_generation_call");
  response.interloom.steps.forEach((report, place) => {
    const at = stepOf(report.step_number);
    for (const [number, attempt] of (report.attempts ?? []).entries()) addTry(at, number, attempt);
    if (made[place]?.result) showPicture(at, made[place].result);
  });
  finish(response);
}

// --- a request ----------------------------------------------------------------------------------

const say = (text) => { $("status").textContent = text; };
const problem = (text) => { $("problem").textContent = text; };

function failed(error) {
  if (error.name === "AbortError") return say("Stopped.");
  say("");
  problem(error.message);
  if (error instanceof Refused && error.status === 401) {
    $("key-row").hidden = false;
    $("key").focus();
  }
}

function body() {
  const text = $("text").value;
  const content = [{ type: "input_text", text }];
  for (const picture of pictures) content.push({ type: "input_image", image_url: picture.url });
  const wanted = { input: [{ role: "user", content }], stream: true, include_attempts: true };
  for (const name of ["t_max", "image_budget", "reluctance", "seed"]) {
    if ($(name).value && !$(name).closest("[hidden]")) wanted[name] = Number($(name).value);
  }
  if ($("generator").value) wanted.generator = $("generator").value;
  return wanted;
}

function follow(event, items) {
  const at = items.at;
  switch (event.type) {
    case "interloom.plan":
      showPlan(event.reasoning, event.steps);
      items.waiting = event.steps.filter((step) => step.prompt);
      say(`The plan has ${event.steps.length} ${event.steps.length === 1 ? "step" : "steps"}.`);
      toSequence();
      break;
    case "interloom.step":
      if (!steps.length) toSequence();
      addStep(event.step);
      items.waiting.push(event.step);
      say(`Step ${event.step.step_number} begins.`);
      break;
    case "interloom.story":
      showMode(event.story && event.mode);
      break;
    case "response.image_generation_call.generating":
      items.at = stepOf(items.waiting.shift().step_number);
      items.at.view.querySelector(".state").textContent = "being drawn";
      items.at.view.querySelector(".state").classList.add("working");
      break;
    case "response.image_generation_call.partial_image":
      items.picture = event.partial_image_b64;
      showPicture(at, items.picture);
      break;
    case "interloom.attempt": {
      const said = addTry(at, event.number, { ...event, image: items.picture });
      items.picture = "";
      say(`Step ${event.step_number}, attempt ${event.number + 1}: ${said}.`);
      break;
    }
    case "response.output_item.done":
      if (event.item.result) showPicture(at, event.item.result);
      break;
    case "response.completed":
    case "response.incomplete":
    case "response.failed":
      finish(event.response);
      break;
  }
}

async function start(submitted) {
  submitted.preventDefault();
  if (!$("key-row").hidden) setKey($("key").value.trim());
  running = new AbortController();
  $("start").disabled = true;
  $("stop").hidden = false;
  problem("");
  say("Sent; waiting for the first step.");
  try {
    const answer = await call("/v1/responses", { method: "POST", body: body(), signal: running.signal });
    clear($("text").value);
    const items = { waiting: [], at: null, picture: "" };
    for await (const event of events(answer)) follow(event, items);
    if (shown === null) problem("The connection broke off; the sequence is not whole.");
    await listRecent();
  } catch (error) {
    failed(error);
  } finally {
    for (const { view } of steps) view.querySelector(".state").classList.remove("working");
    $("start").disabled = false;
    $("stop").hidden = true;
    running = null;
  }
}

// --- pictures of the request --------------------------------------------------------------------

function listPictures() {
  $("pictures").replaceChildren(...pictures.map((picture, place) => {
    const entry = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${picture.name}`);
    remove.onclick = () => {
      pictures.splice(place, 1);
      listPictures();
      $("files").focus();
    };
    entry.append(image(picture.url, picture.name), remove);
    return entry;
  }));
}

const read = (file) => new Promise((done, refuse) => {
  const reader = new FileReader();
  reader.onload = () => done({ name: file.name, url: reader.result });
  reader.onerror = () => refuse(reader.error);
  reader.readAsDataURL(file);
});

async function addPictures(files) {
  const fit = [...files].filter((file) => /^image\/(png|jpeg|webp)$/.test(file.type));
  problem(fit.length < files.length ? "Only PNG, JPEG and WebP pictures can be used." : "");
  pictures.push(...await Promise.all(fit.map(read)));
  listPictures();
}

// --- feedback, downloads, recent results --------------------------------------------------------

function wireFeedback(view, step) {
  const part = (name) => view.querySelector(`.${name}`);
  const send = async (accept, correction) => {
    try {
      const given = { step: step.step_number, accept };
      if (correction) given.correction = correction;
      await call(`/interloom/results/${shown}/feedback`, { method: "POST", body: given });
      part("accept").setAttribute("aria-pressed", accept);
      part("reject").setAttribute("aria-pressed", !accept);
      part("sent").textContent = correction ? "Correction kept." : "Kept.";
    } catch (error) {
      part("sent").textContent = "";
      failed(error);
    }
  };
  part("accept").onclick = () => send(true);
  part("reject").onclick = () => send(false);
  part("correct").onclick = () => {
    const form = part("correction");
    form.hidden = !form.hidden;
    part("correct").setAttribute("aria-expanded", !form.hidden);
    if (!form.hidden) form.querySelector("input").focus();
  };
  part("correction").onsubmit = async (submitted) => {
    submitted.preventDefault();
    await send(false, part("correction").querySelector("input").value);
    part("correction").hidden = true;
    part("correct").setAttribute("aria-expanded", false);
    part("correct").focus();
  };
}

async function download(kind) {
  try {
    const answer = await call(`/interloom/results/${shown}/sequence.${kind}`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = `${shown}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    failed(error);
  }
}

async function listRecent() {
  const { data } = await (await call("/interloom/results")).json();
  $("none").hidden = data.length > 0;
  $("recent").replaceChildren(...data.map((result) => {
    const entry = document.createElement("li");
    const open = document.createElement("button");
    open.type = "button";
    if (result.picture) open.append(image(url(result.picture), ""));
    const told = document.createElement("span");
    told.className = "told";
    told.textContent = (result.status === "completed" ? "" : `(${result.status}) `) + result.text;
    open.append(told);
    open.onclick = async () => {
      if (running) return say("Stop the present request first.");
      try {
        problem("");
        showWhole(await (await call(`/v1/responses/${result.id}`)).json(), result.text);
        $("sequence").focus();
      } catch (error) {
        failed(error);
      }
    };
    entry.append(open);
    return entry;
  }));
}

async function describe() {
  try {
    const { data } = await (await call("/v1/models")).json();
    const [{ id, interloom: { version, generators, options } }] = data;
    $("model").textContent = `${id}, version ${version}`;
    judge = options.includes("reluctance") ? "the model itself" : "the critic";
    for (const field of document.querySelectorAll("[data-option]")) {
      field.hidden = !options.includes(field.dataset.option);
    }
    $("generator").replaceChildren(...generators.map((name) => new Option(name, name)));
    await listRecent();
  } catch (error) {
    if (error.status === 503) return setTimeout(describe, 2000);
    $("model").textContent = "";
    failed(error);
  }
}

$("request").onsubmit = start;
$("stop").onclick = () => running?.abort();
$("files").onchange = async () => {
  await addPictures($("files").files);
  $("files").value = "";
};
$("key").onchange = () => { setKey($("key").value.trim()); problem(""); describe(); };
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") addPictures(event.dataTransfer.files);
  });
}
for (const button of $("downloads").children) button.onclick = () => download(button.dataset.kind);
$("key-row").hidden = !getKey();
$("key").value = getKey();
describe();
