// Reads an image, prepares it as timm does for evaluation, runs the model, and shows the most probable classes.
import * as ort from './ort.wasm.bundle.min.mjs';

ort.env.wasm.numThreads = 1;  // more need headers of cross-origin isolation, which static hosts do not send
ort.env.wasm.proxy = true;  // in a worker: a large model would freeze the page for seconds

const MAX_PIXELS = 40e6;  // decoded, these take 160 MB; phones have little more for a page
const SHOWN_CLASSES = 5;

// Reading

/** An error whose message is for the person in front of the page. */
export class UserError extends Error {}

/**
 * The pixels of an image file, as Pillow's `convert('RGB')` gives them: no colour management, alpha is dropped.
 * A photo's EXIF orientation is applied, which Pillow leaves to its caller: the model sees what the person sees.
 *
 * @param {Blob} blob
 * @returns {Promise<{width: number, height: number, data: Uint8ClampedArray}>} RGBA, row by row
 */
export async function readImage(blob) {
  await checkSize(blob);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, {
      colorSpaceConversion: 'none', premultiplyAlpha: 'none', imageOrientation: 'from-image'});
  } catch {
    throw new UserError('This image is damaged, or too large for this browser. Try another one.');
  }
  const {width, height} = bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.drawImage(bitmap, 0, 0);
  let {data} = context.getImageData(0, 0, width, height);
  let i = 3;
  while (data[i] === 255) i += 4;
  if (i < data.length) data = readTransparent(bitmap) ?? data;
  bitmap.close();
  return {width, height, data};
}

/** Reject what is not an image, or too large, from its header: decoding may take more memory than there is. */
async function checkSize(blob) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  try {
    await new Promise((resolve, reject) => Object.assign(image, {onload: resolve, onerror: reject}));
  } catch {
    throw new UserError('This file is not an image that your browser can read. Choose a PNG, JPEG or WebP file.');
  } finally {
    URL.revokeObjectURL(image.src);
  }
  const pixels = image.naturalWidth * image.naturalHeight;
  if (pixels > MAX_PIXELS) {
    throw new UserError(
      `This image has ${Math.round(pixels / 1e6)} megapixels. Choose one with at most ${MAX_PIXELS / 1e6}.`);
  }
}

/** A 2-D canvas multiplies colours by alpha and loses those of transparent pixels; a WebGL texture keeps them. */
function readTransparent(bitmap) {
  const {width, height} = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext('webgl2');
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const data = new Uint8ClampedArray(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension('WEBGL_lose_context')?.loseContext();  // browsers keep only a few contexts
  return data;
}

// Preprocessing: the same bytes as from timm's transform, which resizes with Pillow

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS = {  // support in pixels, and the weight at a distance
  bilinear: [1, (x) => Math.max(0, 1 - x)],
  bicubic: [2, (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0)],
  lanczos: [3, (x) => (x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const PRECISION = 22;  // bits of Pillow's weights behind the point

/** Pillow's weights for each of `target` pixels: where its window starts, and integers that sum up to about 2^22. */
function windows(length, target, [radius, filter]) {
  const scale = length / target;
  const stretch = Math.max(scale, 1);  // a smaller image averages over more pixels: no aliasing
  return Array.from({length: target}, (_, i) => {
    const center = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - radius * stretch + 0.5));
    const end = Math.min(length, Math.trunc(center + radius * stretch + 0.5));
    const weights = Array.from({length: end - start}, (_, k) => filter(Math.abs((start + k - center + 0.5) / stretch)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return {start, weights: weights.map((w) => Math.sign(w) * Math.floor(Math.abs(w / sum) * 2 ** PRECISION + 0.5))};
  });
}

/** Resample the middle axis of an array (outer, length, inner) of bytes. */
function resampleAxis(source, outer, length, inner, target, filter) {
  if (length === target) return source;
  const result = new Uint8ClampedArray(outer * target * inner);
  windows(length, target, filter).forEach(({start, weights}, i) => {
    for (let o = 0; o < outer; o++) {
      for (let c = 0; c < inner; c++) {
        let sum = 2 ** (PRECISION - 1);
        let from = (o * length + start) * inner + c;
        for (const weight of weights) {
          sum += weight * source[from];
          from += inner;
        }
        result[(o * target + i) * inner + c] = sum >> PRECISION;
      }
    }
  });
  return result;
}

/** Python's `round`: halves go to the even neighbour. */
const roundHalfEven = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/** Height and width that timm resizes an image to, before it crops. */
function resizedSize({width, height}, {input_size: [, cropHeight, cropWidth], crop_pct, crop_mode}) {
  const target = [cropHeight, cropWidth].map((side) => Math.floor(side / crop_pct));
  if (crop_mode === 'squash') return target;
  if (target[0] === target[1]) {  // torchvision's Resize
    const long = Math.trunc(target[0] * Math.max(width, height) / Math.min(width, height));
    return width <= height ? [long, target[0]] : [target[0], long];
  }
  const ratio = Math.min(height / target[0], width / target[1]);  // timm's ResizeKeepRatio
  return [height, width].map((side) => roundHalfEven(side / ratio));
}

/**
 * Convert, resize and crop an image as timm's evaluation transform does.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} image from `readImage`
 * @param {object} config model.json
 * @returns {Uint8ClampedArray} bytes (height, width, channels)
 */
export function resizeAndCrop(image, config) {
  const [channels, cropHeight, cropWidth] = config.input_size;
  const {width, height, data} = image;
  let bytes = new Uint8ClampedArray(width * height * channels);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    if (channels === 1) {  // Pillow's mode 'L'
      bytes[to++] = (data[from] * 19595 + data[from + 1] * 38470 + data[from + 2] * 7471 + 0x8000) >> 16;
    } else {
      bytes[to++] = data[from];
      bytes[to++] = data[from + 1];
      bytes[to++] = data[from + 2];
    }
  }
  const filter = FILTERS[config.interpolation];
  const [newHeight, newWidth] = resizedSize(image, config);
  if (height - newHeight > Math.max(0, 2 * (width - newWidth))) {  // the order of Pillow 13
    bytes = resampleAxis(bytes, 1, height, width * channels, newHeight, filter);
    bytes = resampleAxis(bytes, newHeight, width, channels, newWidth, filter);
  } else {
    bytes = resampleAxis(bytes, height, width, channels, newWidth, filter);
    bytes = resampleAxis(bytes, 1, height, newWidth * channels, newHeight, filter);
  }
  const top = roundHalfEven((newHeight - cropHeight) / 2);
  const left = roundHalfEven((newWidth - cropWidth) / 2);
  const cropped = new Uint8ClampedArray(cropHeight * cropWidth * channels);
  for (let y = 0; y < cropHeight; y++) {
    const from = ((top + y) * newWidth + left) * channels;
    cropped.set(bytes.subarray(from, from + cropWidth * channels), y * cropWidth * channels);
  }
  return cropped;
}

/** Bytes (height, width, channels) -> normalised floats (channels, height, width). */
export function normalise(bytes, {input_size: [channels], mean, std}) {
  const size = bytes.length / channels;
  const result = new Float32Array(bytes.length);
  bytes.forEach((byte, i) => {
    const c = i % channels;
    result[c * size + (i - c) / channels] = (byte / 255 - mean[c]) / std[c];
  });
  return result;
}

// Model

async function load(file) {
  const response = await fetch(file);
  if (!response.ok) throw new UserError(`The server does not have ${file} (status ${response.status}).`);
  return response;
}

/** Probabilities of the classes, and the milliseconds that the model took. */
export async function run(session, config, bytes) {
  const tensor = new ort.Tensor('float32', normalise(bytes, config), [1, ...config.input_size]);
  const start = performance.now();
  const outputs = await session.run({[session.inputNames[0]]: tensor});
  const milliseconds = performance.now() - start;
  const logits = Array.from(outputs[session.outputNames[0]].data);
  const highest = Math.max(...logits);
  const exponentials = logits.map((logit) => Math.exp(logit - highest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return {probabilities: exponentials.map((value) => value / sum), milliseconds};
}

// Page

const $ = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e5 ? 2 : 1)} MB`;
const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function complain(error, what) {
  $('problem').textContent = error instanceof UserError ? error.message : `${what}: ${error.message}`;
  $('problem').scrollIntoView({block: 'nearest'});
}

/** Run one thing at a time, in order: a session takes one image, and the last click is shown last. */
let queue = Promise.resolve();
function enqueue(task) {
  queue = queue.then(async () => {
    $('problem').textContent = '';
    document.body.ariaBusy = 'true';
    try {
      await task();
    } catch (error) {
      complain(error, 'The model cannot run here');
    }
    document.body.ariaBusy = 'false';
  });
  return queue;
}

/** For tests: resolves when nothing is left to do. */
export const settled = () => queue;

function showResult(config, {probabilities, milliseconds}, name) {
  const order = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const label = (i) => config.labels?.[i] ?? `Class ${i}`;
  $('answer').textContent = `${label(order[0])}, ${percent(probabilities[order[0]])}`;
  $('classes').replaceChildren(...order.slice(0, SHOWN_CLASSES).map((i) => {
    const bar = element('span', {className: 'bar'});
    bar.style.width = `${100 * probabilities[i]}%`;
    return element('li', {},
      element('span', {className: 'name', textContent: label(i)}),
      element('span', {className: 'percent', textContent: percent(probabilities[i])}),
      element('span', {className: 'track', ariaHidden: 'true'}, bar));
  }));
  $('time').textContent = `${milliseconds.toFixed(1)} ms for this image in ${name}`;
  $('result').hidden = false;
  $('empty').hidden = true;
  $('answer').parentElement.scrollIntoView({block: 'nearest'});  // on a phone it is below the examples
}

/** Take back the last image and its classes: they would look like the answer to one that cannot be read. */
function clearResult() {
  $('answer').textContent = '';
  for (const id of ['result', 'preview']) $(id).hidden = true;
  for (const id of ['empty', 'prompt']) $(id).hidden = false;
}

/** What the model gets: the bytes after resizing and cropping, in a canvas of that size. */
function showInput([channels, height, width], bytes) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[i * channels + (channels === 1 ? 0 : c)];
    image.data[4 * i + 3] = 255;
  }
  const canvas = Object.assign($('seen'), {width, height});
  canvas.getContext('2d').putImageData(image, 0, 0);
}

function showPreview(blob) {
  URL.revokeObjectURL($('preview').src);
  $('preview').onload = () => $('preview').classList.toggle('small', $('preview').naturalWidth < 100);
  $('preview').src = URL.createObjectURL(blob);
  $('preview').hidden = false;
  $('prompt').hidden = true;
}

async function showExamples(config, classify) {
  const blobs = await Promise.all(config.examples.map(async ({file}) => (await load(file)).blob()));
  $('examples').replaceChildren(...config.examples.map(({name}, i) => {
    const image = element('img', {src: URL.createObjectURL(blobs[i]), alt: ''});
    image.onload = () => image.classList.toggle('small', image.naturalWidth < 100);
    const onclick = () => classify(blobs[i]);
    const ariaLabel = `Example: ${name}`;
    return element('li', {}, element('button', {type: 'button', title: name, ariaLabel, onclick}, image));
  }));
  $('examples-part').hidden = !blobs.length;
}

function showFacts(config) {
  document.title = config.title;
  const parts = config.title.split(/(?<=[._])/);  // where a long name may go on in the next line
  $('title').replaceChildren(...parts.flatMap((part) => [part, element('wbr')]));
  $('lead').textContent = config.lead;
  $('facts').replaceChildren(...config.facts.flatMap(([term, text]) => [
    element('dt', {textContent: term}), element('dd', {textContent: text})]));
}

function addSources(classify) {
  const take = (files, otherwise) => classify(files[0] ?? Promise.reject(new UserError(otherwise)));
  $('file').onchange = () => {
    if ($('file').files.length) take($('file').files);
    $('file').value = '';  // the same file can be chosen again
  };
  document.addEventListener('paste', (event) => take(event.clipboardData.files, 'The clipboard has no image.'));
  document.addEventListener('dragover', (event) => {
    event.preventDefault();  // or the browser leaves the page for the file
    $('drop').classList.add('over');
  });
  document.addEventListener('dragleave', (event) => event.relatedTarget ?? $('drop').classList.remove('over'));
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    $('drop').classList.remove('over');
    take(event.dataTransfer.files, 'No file was dropped. Save the image first, and drop its file.');
  });
}

async function addCamera(classify) {
  const devices = await navigator.mediaDevices?.enumerateDevices() ?? [];  // undefined without HTTPS
  if (!devices.some(({kind}) => kind === 'videoinput')) return;
  const video = $('video');
  const close = () => {
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    $('camera').hidden = true;
    $('open-camera').focus();
  };
  $('open-camera').onclick = () => enqueue(async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
    } catch (error) {
      throw new UserError(`The camera cannot be used: ${error.message}.`);
    }
    await video.play();
    $('camera').hidden = false;
    $('shoot').focus();
  });
  $('shoot').onclick = () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext('2d').drawImage(video, 0, 0);
    close();
    classify(canvas.convertToBlob());
  };
  $('close-camera').onclick = close;
  $('camera').onkeydown = (event) => event.key === 'Escape' && close();
  $('open-camera').hidden = false;
}

/** Load all that the page will need: afterwards it works without a network. */
async function start() {
  const config = await (await load('model.json')).json();
  showFacts(config);
  const size = config.models.reduce((sum, {bytes}) => sum + bytes, 0);
  $('loading').textContent = `Loading the model, ${megabytes(size)} …`;
  const sessions = {};
  for (const {name, file} of config.models) {
    sessions[name] = await ort.InferenceSession.create(await (await load(file)).arrayBuffer());
    await run(sessions[name], config, new Uint8Array(config.input_size.reduce((a, b) => a * b)));  // the slow first run
  }
  let current = config.models[0].name;
  let seen = null;  // the bytes of the last image, for the other model

  const classify = (source) => enqueue(async () => {  // a blob, or a promise of one
    seen = null;
    clearResult();
    const blob = await source;
    const bytes = resizeAndCrop(await readImage(blob), config);
    const result = await run(sessions[current], config, bytes);
    seen = bytes;
    showPreview(blob);
    showInput(config.input_size, bytes);
    showResult(config, result, current);
  });

  $('models').append(...config.models.map(({name, bytes}) => element('label', {},
    element('input', {
      type: 'radio', name: 'model', value: name, checked: name === current,
      onchange: () => enqueue(async () => {
        current = name;
        if (seen) showResult(config, await run(sessions[name], config, seen), name);
      })}),
    element('span', {textContent: `${name}, ${megabytes(bytes)}`}))));
  $('models').hidden = config.models.length < 2;
  await showExamples(config, classify);
  addSources(classify);
  await addCamera(classify);
  $('file').disabled = false;
  $('loading').hidden = true;
  return {config, sessions, classify};
}

/** What the page runs on, for whoever imports this module, such as its tests. */
export const app = start();
app.catch((error) => {
  $('loading').hidden = true;
  complain(error, 'The page cannot run here');
});
