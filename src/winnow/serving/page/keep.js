// What can be taken away: the answer as JSON, and the picture as it is seen.

import { ink } from "./colours.js";
import { make, save } from "./dom.js";

export function saveJson(panes, threshold) {
  const answers = panes.map((pane) => {
    const { levels, samples, ...told } = pane.result;
    return { ...told, name: pane.picture.name, threshold,
      detections: told.detections.filter((each) => each.score >= threshold) };
  });
  const content = JSON.stringify(answers.length === 1 ? answers[0] : answers, null, 2);
  save(new Blob([content], { type: "application/json" }), "winnow.json");
}

/** All panes side by side, with their maps, boxes and points. */
export async function savePicture(panes, threshold) {
  const gap = panes.length > 1 ? 16 : 0;
  const [width, height] = [panes[0].photo.width, panes[0].photo.height];
  const sheet = make("canvas", { width: panes.length * width + gap * (panes.length - 1), height });
  const pen = sheet.getContext("2d");
  panes.forEach((pane, i) => drawPane(pen, pane, i * (width + gap), threshold));
  save(await new Promise((done) => sheet.toBlob(done, "image/png")), "winnow.png");
}

function drawPane(pen, pane, left, threshold) {
  const { width, height } = pane.photo;
  for (const layer of [pane.photo, pane.map]) pen.drawImage(layer, left, 0, width, height);
  const scale = width / pane.result.width;
  const text = Math.max(11, Math.sqrt(Math.min(width, height) / 600) * 16);
  pen.lineWidth = Math.max(2, text / 6);
  pen.font = `600 ${text}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const each of pane.shown(threshold).reverse()) {
    const [x1, y1, x2, y2] = each.box.map((side) => side * scale);
    const words = `${each.class_name} ${each.score.toFixed(2)}`;
    const colour = pane.colour(each);
    const [wide, high] = [pen.measureText(words).width + text * 0.7, text * 1.45];
    const top = y1 > high ? y1 - high : y1;
    pen.strokeStyle = pen.fillStyle = colour;
    pen.strokeRect(left + x1, y1, x2 - x1, y2 - y1);
    pen.fillRect(left + x1 - pen.lineWidth / 2, top, wide, high);
    pen.fillStyle = ink(colour);
    pen.fillText(words, left + x1 + text * 0.35 - pen.lineWidth / 2, top + high / 2);
  }
  pen.drawImage(pane.points, left, 0, width, height);
}
