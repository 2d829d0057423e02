// Masks and zones, drawn on a picture of a camera by mouse, touch or keyboard. Without this, they are lines of text.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const STEP = 0.01;
const FAR = 0.05;
const LEAST_CORNERS = 3;
const LEAST_DRAG = 0.02;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const inside = (value) => Math.min(1, Math.max(0, Math.round(value * 1000) / 1000));

class Areas {
  constructor(canvas) {
    this.canvas = canvas;
    this.words = canvas.dataset;
    this.svg = canvas.querySelector("svg");
    this.list = document.getElementById("areas");
    this.text = document.querySelector("textarea[name=areas]");
    this.kind = "mask";
    this.areas = this.read();
    for (const id of ["canvas", "tools", "help"]) {
      document.getElementById(id).hidden = false;
    }
    document.getElementById("lines").hidden = true;
    for (const kind of ["mask", "zone"]) {
      document.getElementById(`add-${kind}`).addEventListener("click", () => {
        this.kind = kind;
        this.add(this.box(0.35, 0.35, 0.65, 0.65));
      });
    }
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.draw();
  }

  read() {
    return this.text.value.split("\n").filter((line) => line.includes(":")).map((line) => {
      const [what, corners] = [line.slice(0, line.indexOf(":")).trim(), line.slice(line.indexOf(":") + 1)];
      const kind = what.startsWith("zone") ? "zone" : "mask";
      return {
        kind,
        name: kind === "zone" ? what.slice(4).trim() : "",
        corners: corners.trim().split(/\s+/).map((corner) => corner.split(",").map(Number)),
      };
    }).filter((area) => area.corners.every((corner) => corner.length === 2 && corner.every(Number.isFinite)));
  }

  write() {
    this.text.value = this.areas
      .map((area) => `${area.kind === "zone" ? `zone ${area.name}` : "mask"}: ${area.corners.map((each) => each.join(",")).join(" ")}\n`)
      .join("");
  }

  box(x1, y1, x2, y2) {
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
  }

  add(corners) {
    let name = "";
    if (this.kind === "zone") {
      let number = 1;
      while (this.areas.some((area) => area.name === `${this.words.zone} ${number}`)) {
        number += 1;
      }
      name = `${this.words.zone} ${number}`;
    }
    this.areas.push({ kind: this.kind, name, corners });
    this.draw();
    this.focus(this.areas.length - 1, 0);
  }

  focus(area, corner) {
    this.canvas.querySelector(`button[data-area="${area}"][data-corner="${corner}"]`)?.focus();
  }

  label(area, index) {
    const number = this.areas.filter((each) => each.kind === area.kind).indexOf(area) + 1;
    return area.kind === "zone" ? area.name || `${this.words.zone} ${index + 1}` : `${this.words.mask} ${number}`;
  }

  draw() {
    this.svg.replaceChildren(...this.areas.map((area) => {
      const shape = document.createElementNS(SVG, "polygon");
      shape.setAttribute("points", area.corners.map((corner) => corner.join(",")).join(" "));
      shape.setAttribute("class", area.kind);
      return shape;
    }));
    this.canvas.querySelectorAll("button").forEach((button) => button.remove());
    this.areas.forEach((area, index) => area.corners.forEach((_, corner) => this.canvas.append(this.handle(area, index, corner))));
    this.list.replaceChildren(...this.areas.map((area, index) => this.row(area, index)));
    this.write();
  }

  handle(area, index, corner) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `corner ${area.kind}`;
    button.dataset.area = index;
    button.dataset.corner = corner;
    this.place(button, area, index, corner);
    button.addEventListener("keydown", (event) => this.key(event, area, index, corner));
    button.addEventListener("dblclick", () => this.split(area, index, corner));
    return button;
  }

  place(button, area, index, corner) {
    const [x, y] = area.corners[corner];
    button.style.left = `${100 * x}%`;
    button.style.top = `${100 * y}%`;
    button.setAttribute(
      "aria-label",
      `${this.label(area, index)}, ${this.words.point} ${corner + 1} ${this.words.of} ${area.corners.length}: ${Math.round(100 * x)} %, ${Math.round(100 * y)} %`,
    );
  }

  move(area, index, corner, x, y) {
    area.corners[corner] = [inside(x), inside(y)];
    this.svg.children[index].setAttribute("points", area.corners.map((each) => each.join(",")).join(" "));
    this.place(this.canvas.querySelector(`button[data-area="${index}"][data-corner="${corner}"]`), area, index, corner);
    this.write();
  }

  key(event, area, index, corner) {
    const move = MOVES[event.key];
    if (move) {
      const step = event.shiftKey ? FAR : STEP;
      const [x, y] = area.corners[corner];
      this.move(area, index, corner, x + move[0] * step, y + move[1] * step);
    } else if (event.key === "+" || event.key === "Insert") {
      this.split(area, index, corner);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (area.corners.length > LEAST_CORNERS) {
        area.corners.splice(corner, 1);
        this.draw();
        this.focus(index, Math.min(corner, area.corners.length - 1));
      }
    } else {
      return;
    }
    event.preventDefault();
  }

  split(area, index, corner) {
    const [x1, y1] = area.corners[corner];
    const [x2, y2] = area.corners[(corner + 1) % area.corners.length];
    area.corners.splice(corner + 1, 0, [inside((x1 + x2) / 2), inside((y1 + y2) / 2)]);
    this.draw();
    this.focus(index, corner + 1);
  }

  at(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [inside((event.clientX - frame.left) / frame.width), inside((event.clientY - frame.top) / frame.height)];
  }

  press(event) {
    if (event.button !== 0) {
      return;
    }
    const { area, corner } = event.target.dataset;
    const begun = this.at(event);
    const drag = (moved) => {
      const now = this.at(moved);
      if (corner !== undefined) {
        this.move(this.areas[area], Number(area), Number(corner), ...now);
      }
    };
    const release = (let_go) => {
      this.canvas.removeEventListener("pointermove", drag);
      const end = this.at(let_go);
      if (corner === undefined && Math.abs(end[0] - begun[0]) > LEAST_DRAG && Math.abs(end[1] - begun[1]) > LEAST_DRAG) {
        this.add(this.box(...begun, ...end));
      }
    };
    if (corner === undefined) {
      event.preventDefault();
    }
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.addEventListener("pointermove", drag);
    this.canvas.addEventListener("pointerup", release, { once: true });
  }

  row(area, index) {
    const item = document.createElement("li");
    item.className = "row";
    const line = document.createElement("span");
    line.className = "pad";
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "quiet";
    remove.textContent = `${this.words.remove}: ${this.label(area, index)}`;
    remove.addEventListener("click", () => {
      this.areas.splice(index, 1);
      this.draw();
      document.getElementById("add-mask").focus();
    });
    if (area.kind === "zone") {
      const label = document.createElement("label");
      const field = document.createElement("input");
      label.className = "grow";
      label.append(this.words.name, field);
      field.maxLength = 40;
      field.value = area.name;
      field.addEventListener("input", () => {
        area.name = field.value.replace(/[:,\n]/g, "").trim();
        remove.textContent = `${this.words.remove}: ${this.label(area, index)}`;
        this.write();
      });
      line.append(label, remove);
    } else {
      const name = document.createElement("b");
      name.className = "grow";
      name.textContent = this.label(area, index);
      line.append(name, remove);
    }
    item.append(line);
    return item;
  }
}

const canvas = document.getElementById("canvas");
if (canvas) {
  new Areas(canvas);
}
