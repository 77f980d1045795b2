// Where pictures come from: files, the clipboard, the camera, samples.

import { find, make } from "./dom.js";

const LARGEST_SHOWN = 1600; // pixels of the longer side on the page; the server gets the file as it is
const LARGEST_SENT = 4096;  // unless it takes less: then this, which is more than any model reads
const FORM = 4096;          // bytes of a request around the picture
export const SAMPLES = 6;

/** A blob as a picture that can be sent and shown, made smaller where the server takes less. An Error says why not. */
export async function picture(blob, name, limits) {
  let whole;
  try {
    whole = await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} can't be read as a picture. It may be damaged, or of another format.`);
  }
  const { width, height } = whole;
  const bitmap = await smaller(whole, LARGEST_SHOWN);
  const fits = blob.size <= limits.upload_bytes - FORM && width * height <= limits.pixels;
  const told = { blob, name, bitmap, note: "" };
  if (!fits) {
    const sent = await smaller(whole, Math.min(LARGEST_SENT, Math.sqrt(limits.pixels)));
    const paper = new OffscreenCanvas(sent.width, sent.height);
    paper.getContext("2d").drawImage(sent, 0, 0);
    told.blob = await paper.convertToBlob({ type: "image/jpeg", quality: 0.92 });
    told.note = `${name}, ${width} × ${height}, is more than this server takes. It was made smaller and sent as `
      + `${sent.width} × ${sent.height}; boxes are in those pixels.`;
  }
  if (bitmap !== whole) whole.close();
  return told;
}

/** A bitmap whose longer side has at most so many pixels. */
async function smaller(bitmap, longest) {
  const factor = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * factor)));
  return factor === 1 ? bitmap
    : createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
}

export async function sample(number) {
  return (await fetch(`/samples/${number}.jpg`)).blob();
}

/** Listen to everything that can bring a picture; `take` gets a blob and its name. */
export function listen(take) {
  find("open").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) take(target.files[0], target.files[0].name);
    target.value = "";
  });
  addEventListener("paste", ({ clipboardData }) => {
    const file = [...clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) take(file, "The pasted picture");
  });
  const over = (is) => document.body.classList.toggle("dropping", is);
  addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const [file] = event.dataTransfer.files;
    if (file) take(file, file.name);
  });
}

/** Buttons with the pictures to try. */
export function offerSamples(take) {
  find("samples").replaceChildren(...Array.from({ length: SAMPLES }, (_, number) => {
    const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": `Sample ${number + 1}` },
      make("img", { src: `/samples/${number}.jpg`, alt: "", loading: "lazy", width: 96, height: 72 }));
    button.addEventListener("click", () => take(number));
    return button;
  }));
}

export function markSample(number) {
  [...find("samples").children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
}

/** The camera in a dialog, until a picture was taken or it is closed. */
export function offerCamera(take, fail) {
  const [dialog, video] = [find("camera-dialog"), find("video")];
  if (!navigator.mediaDevices?.getUserMedia) {
    find("camera").disabled = true;
    find("camera").title = "Browsers lend the camera only to https pages and to this machine";
    return;
  }
  find("camera").addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      fail(new Error(`The camera can't be used (${error.name}).`));
      return;
    }
    dialog.showModal();
    await video.play();
  });
  find("take").addEventListener("click", async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    take(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }), "The camera's picture");
  });
  find("close-camera").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  });
}
