// Words beside boxes, best first, each where it hides no other. Where there is no room it shows when it is pointed at.

/** Places the labels of boxes, which come best first, on a stage of a width and height in pixels. */
export function place(boxes, width, height) {
  const taken = [];
  const sizes = boxes.map(({ label }) => [label.offsetWidth, label.offsetHeight]); // all at once: one layout
  boxes.forEach(({ element, label, corners: [x1, y1, x2, y2], first }, i) => {
    const [wide, high] = sizes[i];
    const inside = (left) => Math.max(0, Math.min(left, width - wide));
    const places = [[inside(x1), y1 - high], [inside(x1), y1], [inside(x2 - wide), y1 - high], [inside(x1), y2],
      [inside(x2 - wide), y2 - high]].filter(([, top]) => top >= 0 && top + high <= height);
    const free = places.find(([left, top]) => !taken.some(([l, t, w, h]) =>
      left < l + w && l < left + wide && top < t + h && t < top + high));
    const [left, top] = free ?? places[0] ?? [inside(x1), 0];
    label.style.left = `${left - x1 - element.clientLeft}px`;
    label.style.top = `${top - y1 - element.clientTop}px`;
    element.classList.toggle("crowded", !free && !first);
    if (free || first) taken.push([left, top, wide, high]);
  });
}
