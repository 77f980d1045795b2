// Colours of classes, the same as in drawn pictures, and of feature levels.

const CLASSES = ["#F5B301", "#1F6FEB", "#E5383B", "#2FBF71", "#7B3FE4", "#19C3D6", "#F26A1B", "#0B7A75", "#F062A6",
  "#9ACD32", "#4C51BF", "#A0522D"];
export const LEVELS = ["#FFE08A", "#7CC7FF", "#FF8FB1", "#9BE8A8", "#D3B3FF"];

export const classColour = (order) => CLASSES[order % CLASSES.length];

/** Dark or light text, whichever reads better on a colour (relative luminance, WCAG 2). */
export function ink(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (light + 0.05) / 0.058 > 1.05 / (light + 0.05) ? "#15171C" : "#FFFFFF";
}
