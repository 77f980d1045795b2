// Token maps as pictures: a level's bytes into colours on a canvas.

const HEAT = [[8, 6, 28], [74, 20, 104], [160, 42, 110], [234, 92, 70], [252, 176, 92], [252, 244, 196]];
const UNKEPT = [12, 13, 17];

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** One level, or all on the finest one's grid (level -1): values in 0 to 255 and their size. */
export function field(levels, level, name) {
  if (level >= 0) {
    const one = levels[Math.min(level, levels.length - 1)];
    return { width: one.width, height: one.height, values: scaled(one, name) };
  }
  const { width, height } = levels[0];
  const values = new Float32Array(width * height);
  for (const each of levels) {
    const own = scaled(each, name);
    for (let y = 0; y < height; y++) {
      const row = Math.min(each.height - 1, Math.floor((y + 0.5) * each.height / height)) * each.width;
      for (let x = 0; x < width; x++) {
        const column = Math.min(each.width - 1, Math.floor((x + 0.5) * each.width / width));
        values[y * width + x] += own[row + column] / levels.length;
      }
    }
  }
  return { width, height, values };
}

function scaled(level, name) {
  const own = bytes(level[name]);
  return name === "kept" ? own.map((kept) => 255 * kept) : own;
}

/** Heat over the picture; low values let less of it through. */
export function paintHeat(canvas, map) {
  paint(canvas, map, true, (value) => [...heat(value / 255), 215]);
}

/** What was not kept goes dark; over all levels (-1), the darker the fewer kept it. */
export function paintKept(canvas, map, level) {
  paint(canvas, map, false, (value) => [...UNKEPT, 215 * (1 - (value / 255) ** 0.7)]);
  if (level >= 0) outline(canvas, map);
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

function paint(canvas, { width, height, values }, smooth, colour) {
  const small = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  values.forEach((value, i) => pixels.data.set(colour(value), 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = smooth;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Thin edges around kept tokens, where cells are large enough to have any. */
function outline(canvas, { width, height, values }) {
  const [w, h] = [canvas.width / width, canvas.height / height];
  if (Math.min(w, h) < 9) return;
  const pen = canvas.getContext("2d");
  pen.strokeStyle = "rgba(254, 176, 96, .8)";
  pen.lineWidth = Math.max(1, Math.min(w, h) / 24);
  values.forEach((value, i) => {
    if (value > 0) pen.strokeRect((i % width) * w, Math.floor(i / width) * h, w, h);
  });
}

function heat(share) {
  const place = Math.min(0.9999, Math.max(0, share)) * (HEAT.length - 1);
  const [low, high] = [HEAT[Math.floor(place)], HEAT[Math.floor(place) + 1]];
  return low.map((value, i) => value + (place % 1) * (high[i] - value));
}
