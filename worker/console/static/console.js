// The pages work without this, except that "Now" then stands still. It shows times in the reader's own zone, takes
// dropped photos, and lets new sightings appear.
"use strict";

const SURE = [0.3, 0.1, 0];
const TYPES = ["started", "updated", "ended", "corrected"];
const AGAIN_MS = 3000;
const STANDING_MS = 5000;

function local(time) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.valueOf())) {
    time.textContent = at.toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });
    time.title = time.dateTime;
  }
}

// A time that the server reads and writes in UTC, and a person in their own zone.
function typeLocally(field) {
  const shifted = (time, ms) => new Date(time.valueOf() + ms).toISOString().slice(0, 16);
  const there = new Date(`${field.value}Z`);
  if (field.value && !Number.isNaN(there.valueOf())) {
    field.value = shifted(there, -there.getTimezoneOffset() * 60000);
  }
  field.parentElement.querySelector("span").remove();
  field.form.addEventListener("formdata", (event) => {
    if (field.value) {
      event.formData.set(field.name, shifted(new Date(field.value), 0));
    }
  });
}

function takeDrops(form) {
  const field = form.querySelector("input[type=file]");
  const over = (event, is) => {
    event.preventDefault();
    form.classList.toggle("over", is);
  };
  form.addEventListener("dragover", (event) => over(event, true));
  form.addEventListener("dragleave", (event) => over(event, false));
  form.addEventListener("drop", (event) => {
    over(event, false);
    if (event.dataTransfer.files.length) {
      field.files = event.dataTransfer.files;
    }
  });
}

// Tells of chosen people, or of unknown ones, once a sighting. What was chosen stays in this browser.
class Alarm {
  constructor() {
    this.whom = document.getElementById("whom");
    this.chosen = document.getElementById("chosen");
    this.told = document.getElementById("alarmed");
    this.heard = new Set();
    document.getElementById("alarm").hidden = false;
    for (const field of [this.whom, this.chosen]) {
      field.value = localStorage.getItem(`facestream-${field.id}`) ?? "";
      field.addEventListener("change", () => this.keep(field));
    }
  }

  keep(field) {
    localStorage.setItem(`facestream-${field.id}`, field.value);
    this.sound ??= new AudioContext();
    if (this.whom.value && "Notification" in window && Notification.permission === "default") {
      Notification.requestPermission();
    }
  }

  isMeant(event) {
    if (this.whom.value === "named") {
      const names = this.chosen.value.toLowerCase().split(",").map((name) => name.trim());
      return event.identity_name !== "" && names.includes(event.identity_name.toLowerCase());
    }
    return this.whom.value === "no" && event.identity_name === "" && event.type !== "erased";
  }

  hear(event, unknown) {
    if (!this.isMeant(event) || event.type === "corrected" || this.heard.has(event.sighting_id)) {
      return;
    }
    this.heard.add(event.sighting_id);
    const text = `${event.identity_name || unknown} · ${event.camera_id}`;
    this.told.textContent = this.told.dataset.of.replace("{name}", text);
    if ("Notification" in window && Notification.permission === "granted") {
      new Notification(text, { icon: `/faces/${encodeURIComponent(event.sighting_id)}?px=96`, tag: event.sighting_id });
    }
    this.beep();
  }

  beep() {
    if (this.sound?.state !== "running") {
      return;
    }
    const tone = this.sound.createOscillator();
    tone.frequency.value = 880;
    tone.connect(this.sound.destination);
    tone.start();
    tone.stop(this.sound.currentTime + 0.25);
  }
}

// Photos of the webcam become files of the form. Nothing is sent before "Add".
class Webcam {
  constructor(box) {
    this.box = box;
    this.field = box.closest("form").querySelector("input[type=file]");
    this.video = box.querySelector("video");
    this.told = box.querySelector(".told");
    this.take = box.querySelector(".take");
    this.open = box.querySelector(".open");
    box.hidden = false;
    this.open.addEventListener("click", () => this.start());
    this.take.addEventListener("click", () => this.shoot());
    window.addEventListener("pagehide", () => this.stop());
  }

  async start() {
    if (!window.isSecureContext) {
      this.told.textContent = this.box.dataset.insecure;
      return;
    }
    try {
      const wanted = { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" };
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
      await this.video.play();
    } catch {
      this.told.textContent = this.box.dataset.none;
      return;
    }
    this.told.textContent = "";
    this.video.hidden = this.take.hidden = false;
    this.open.hidden = true;
  }

  shoot() {
    const canvas = document.createElement("canvas");
    canvas.width = this.video.videoWidth;
    canvas.height = this.video.videoHeight;
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    canvas.toBlob((blob) => this.add(blob), "image/jpeg", 0.92);
  }

  add(blob) {
    const files = new DataTransfer();
    [...this.field.files].forEach((file) => files.items.add(file));
    const at = new Date().toISOString().replaceAll(":", "-");
    files.items.add(new File([blob], `webcam ${at}.jpg`, { type: "image/jpeg" }));
    this.field.files = files.files;
    this.told.textContent = `${this.box.dataset.taken} ${files.files.length}`;
  }

  stop() {
    this.video.srcObject?.getTracks().forEach((track) => track.stop());
  }
}

class Strip {
  constructor(list) {
    this.list = list;
    this.after = list.dataset.after;
    this.most = Number(list.dataset.most);
    this.row = document.getElementById("row");
    this.link = document.getElementById("link");
    this.show = document.getElementById("show");
    this.button = document.getElementById("pause");
    this.waiting = [];
    this.paused = false;
    this.words = document.getElementById("words");
    this.alarm = new Alarm();
    this.show.addEventListener("change", () => this.filter());
    this.words.addEventListener("input", () => this.filter());
    this.button.hidden = false;
    this.button.addEventListener("click", () => this.pause());
    this.filter();
    this.connect();
  }

  // The line to the console may hold while Redis behind it is away.
  standing(isWell) {
    if (this.source.readyState === EventSource.OPEN) {
      this.say(isWell ? this.link.dataset.live : this.link.dataset.away);
    }
    document.getElementById("asked")?.toggleAttribute("hidden", isWell);
  }

  connect() {
    const source = (this.source = new EventSource(`/api/v1/events?after=${encodeURIComponent(this.after)}`));
    source.onopen = () => this.say(this.link.dataset.live);
    source.onerror = () => {
      this.say(this.link.dataset.away);
      source.close();
      setTimeout(() => this.connect(), AGAIN_MS);
    };
    source.addEventListener("sighting", (message) => {
      this.after = message.lastEventId;
      const event = JSON.parse(message.data);
      this.alarm.hear(event, this.list.dataset.unknown);
      if (this.paused) {
        this.waiting.push(event);
      } else {
        this.put(event);
      }
    });
  }

  say(text) {
    this.link.textContent = text;
  }

  pause() {
    this.paused = !this.paused;
    this.button.setAttribute("aria-pressed", String(this.paused));
    this.button.textContent = this.paused ? this.button.dataset.on : this.button.dataset.off;
    if (!this.paused) {
      this.waiting.splice(0).forEach((event) => this.put(event));
    }
  }

  put(event) {
    const id = event.sighting_id;
    const known = [...this.list.children].find((item) => item.dataset.id === id);
    if (event.type === "erased") {
      known?.remove();
      return;
    }
    const item = known ?? this.row.content.firstElementChild.cloneNode(true);
    item.dataset.id = id;
    item.dataset.known = event.identity_name ? "yes" : "no";
    item.querySelector("a").href = `/sightings/${encodeURIComponent(id)}`;
    item.querySelector("img").src = `/faces/${encodeURIComponent(id)}?px=64&at=${encodeURIComponent(event.event_id)}`;
    const name = item.querySelector("b");
    name.className = event.identity_name ? "known" : "stranger";
    name.firstElementChild.textContent = event.identity_name || this.list.dataset.unknown;
    const time = item.querySelector("time");
    time.dateTime = event.started_at;
    local(time);
    item.querySelector(".camera").textContent = event.camera_id;
    const above = (Number(event.similarity) - Number(event.threshold)) / (1 - Number(event.threshold));
    const told = event.identity_name && event.similarity !== "" && event.threshold !== "";
    item.querySelector(".sure").textContent = told ? this.sure(above) : "";
    item.querySelector(".numbers").textContent = told
      ? `${Number(event.similarity).toFixed(2)} / ${Number(event.threshold).toFixed(2)}`
      : "";
    item.querySelector(".type").textContent = this.list.dataset.types.split("|")[TYPES.indexOf(event.type)] ?? event.type;
    if (!known) {
      const isBefore = (other) => other.querySelector("time").dateTime <= event.started_at;
      this.list.insertBefore(item, [...this.list.children].find(isBefore) ?? null);
      while (this.list.children.length > this.most) {
        this.list.lastElementChild.remove();
      }
    }
    this.filter();
  }

  sure(above) {
    const place = SURE.findIndex((least) => above >= least);
    return this.list.dataset.sure.split("|").at(place);
  }

  filter() {
    const wanted = this.show.value;
    const words = this.words.value.toLowerCase().split(" ").filter(Boolean);
    for (const item of this.list.children) {
      const text = `${item.querySelector("bdi").textContent} ${item.querySelector(".camera").textContent}`.toLowerCase();
      item.hidden = (wanted !== "" && item.dataset.known !== wanted) || !words.every((word) => text.includes(word));
    }
    document.getElementById("nobody").hidden = [...this.list.children].some((item) => !item.hidden);
  }
}

// Of thousands of names, those that fit what is typed are fetched.
function suggestNames(field) {
  const list = document.getElementById(field.getAttribute("list"));
  let asked = 0;
  field.addEventListener("input", async () => {
    const number = ++asked;
    const answer = await fetch(`/api/v1/people?limit=20&q=${encodeURIComponent(field.value)}`);
    if (answer.ok && number === asked) {
      const found = (await answer.json()).items;
      list.replaceChildren(...found.map((person) => new Option("", person.identity_name)));
    }
  });
}

// People are chosen by their names, each shown by itself. What is sent is the field with one name a line.
class Chosen {
  constructor(box) {
    this.box = box;
    this.field = box.querySelector("textarea");
    const label = this.field.closest("label");
    const told = document.createElement("label");
    const hint = document.createElement("span");
    hint.className = "dim";
    hint.textContent = box.dataset.add;
    this.typed = document.createElement("input");
    this.typed.maxLength = 300;
    this.typed.autocomplete = "off";
    this.typed.setAttribute("list", "names");
    told.append(label.firstChild.textContent, hint, this.typed);
    this.list = document.createElement("ul");
    this.list.className = "chips";
    label.hidden = true;
    box.append(told, this.list);
    suggestNames(this.typed);
    this.typed.addEventListener("change", () => this.add());
    this.typed.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.add();
      }
    });
    this.show();
  }

  get names() {
    return this.field.value.split("\n").map((name) => name.trim()).filter(Boolean);
  }

  keep(names) {
    this.field.value = names.join("\n");
    this.show();
  }

  add() {
    const name = this.typed.value.trim();
    this.typed.value = "";
    if (name && !this.names.includes(name)) {
      this.keep([...this.names, name]);
    }
  }

  show() {
    const chip = (name) => {
      const item = document.createElement("li");
      const shown = document.createElement("bdi");
      shown.textContent = name;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.textContent = "\u00d7";
      button.setAttribute("aria-label", `${this.box.dataset.remove} ${name}`);
      button.addEventListener("click", () => {
        this.keep(this.names.filter((each) => each !== name));
        this.typed.focus();
      });
      item.append(shown, button);
      return item;
    };
    this.list.replaceChildren(...this.names.map(chip));
  }
}

// A second click sends nothing; the server would do nothing for it either.
function sendOnce(form) {
  const enable = (is) => form.querySelectorAll("button").forEach((button) => (button.disabled = !is));
  form.addEventListener("submit", (event) => setTimeout(() => event.defaultPrevented || enable(false)));
  window.addEventListener("pageshow", () => enable(true));
}

// Who goes back sees what holds now, unless they have begun to type there.
function comeBack() {
  if (isTyped()) {
    document.querySelectorAll("input[name=key]").forEach((field) => (field.value += "-"));
  } else {
    location.reload();
  }
}

function isTyped() {
  const fields = [...document.querySelectorAll("form[method=post] :is(input:not([type=hidden]), textarea)")];
  return fields.some((field) => field.value !== field.defaultValue || field.checked !== field.defaultChecked);
}

// An open page says what is away, and comes back by itself. What shows how things are now is fetched again.
class Standing {
  constructor(line) {
    this.line = line;
    this.parts = [...document.querySelectorAll("[data-live]")];
    document.addEventListener("visibilitychange", () => this.look());
    setInterval(() => this.look(), STANDING_MS);
  }

  async look() {
    if (document.hidden) {
      return;
    }
    const trouble = await this.ask("/standing").catch(() => this.line.dataset.lost);
    const wasAway = !this.line.hidden || document.querySelector("#asked .wrong") !== null;
    if (this.line.textContent !== trouble) {
      this.line.textContent = trouble;
    }
    this.line.hidden = trouble === "";
    strip?.standing(trouble === "");
    if (wasAway && trouble === "" && strip === null && !isTyped()) {
      location.reload();
    }
    if (trouble === "") {
      this.parts.forEach((part) => this.renew(part).catch(() => {}));
    }
  }

  async ask(path) {
    const answer = await fetch(path);
    if (answer.redirected) {
      return this.line.dataset.out;
    }
    if (!answer.ok) {
      throw new Error(answer.statusText);
    }
    return answer.text();
  }

  async renew(part) {
    if (part.contains(document.activeElement)) {
      return;
    }
    const page = new DOMParser().parseFromString(await this.ask(part.dataset.live || location.href), "text/html");
    part.replaceChildren(...(page.getElementById(part.id) ?? page.body).childNodes);
    part.querySelectorAll("time").forEach(local);
  }
}

document.querySelectorAll("form[method=post]").forEach(sendOnce);
window.addEventListener("pageshow", (event) => event.persisted && comeBack());
const at = document.getElementById("main").dataset.at;
if (at) {
  history.replaceState(null, "", at);
}
document.querySelectorAll("time").forEach(local);
document.querySelectorAll("input[list=names]").forEach(suggestNames);
document.querySelectorAll(".people").forEach((box) => new Chosen(box));
document.querySelectorAll("form.drop").forEach(takeDrops);
document.querySelectorAll("input[data-utc]").forEach(typeLocally);
document.querySelectorAll(".webcam").forEach((box) => new Webcam(box));
const copy = document.getElementById("copy");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.origin + location.pathname);
    document.getElementById("copied").textContent = copy.dataset.done;
  });
}
const list = document.getElementById("strip");
const strip = list && new Strip(list);
const standing = document.getElementById("standing");
if (standing) {
  new Standing(standing);
}
const code = document.getElementById("code");
if (code && location.hash.length > 1) {
  code.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}

// A form that was sent without a session stays in this tab while somebody logs in at the provider, and comes back then.
const KEPT = "facestream-kept";
const provider = document.getElementById("provider");
provider?.addEventListener("click", () => {
  const kept = document.querySelector("input[name=kept]");
  if (kept) {
    sessionStorage.setItem(KEPT, kept.value);
  }
});
if (provider && !provider.search.includes(encodeURIComponent("/login/kept"))) {
  sessionStorage.removeItem(KEPT);
}
const again = document.getElementById("again");
if (again) {
  again.elements.kept.value = sessionStorage.getItem(KEPT) ?? "";
  sessionStorage.removeItem(KEPT);
  again.submit();
}

// A camera is tried without leaving the page: nothing that was typed has to be typed again.
const trial = document.getElementById("trial");
trial?.addEventListener("submit", async (event) => {
  if (event.submitter?.value !== "test") {
    return;
  }
  event.preventDefault();
  const told = document.getElementById("tried");
  const fields = new URLSearchParams(new FormData(trial, event.submitter));
  fields.set("key", `${fields.get("key")}-${Date.now()}`);
  const say = (kind, text) => {
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = text;
    told.replaceChildren(line);
  };
  say("dim", trial.dataset.waiting);
  event.submitter.disabled = true;
  try {
    const answer = await fetch(trial.action, { method: "POST", body: fields });
    if (answer.status === 401) {
      // Without a session, the page of the log-in keeps what was typed.
      trial.append(Object.assign(document.createElement("input"), { type: "hidden", name: "do", value: "test" }));
      trial.submit();
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    page.getElementById("retype")?.remove();
    const found = answer.ok ? page.getElementById("tried").childNodes : [page.querySelector("main .wrong:not(#standing)")];
    told.replaceChildren(...found);
  } catch {
    say("wrong", trial.dataset.lost);
  }
  event.submitter.disabled = false;
});
