// What was found, painted on a canvas: of one stage and one head.

const INK = "#202020";

/* Paints an image, and what one stage found in it, enlarged by a factor.

   scene: photo (bitmap), found (the stage's findings, or null), head (the model's description of it), map (picture of the whole
   image, or null), threshold, opacity, boxes (x, y, w, h, drawn and numbered), sketch (a box that is being drawn, or null). */
export function paint(context, scene, factor) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(scene.photo, 0, 0, width, height);
  if (scene.map) {
    context.globalAlpha = scene.opacity;
    context.drawImage(scene.map, 0, 0, width, height);
    context.globalAlpha = 1;
  }
  scene.boxes.forEach((box, i) => outline(context, box, factor, scene.boxes.length > 1 ? String(i + 1) : ""));
  if (scene.sketch) outline(context, scene.sketch, factor, "");
  const people = scene.found?.poses[scene.head.name] ?? [];
  people.forEach((points, person) => skeleton(context, scene, points, scene.found.boxes[person], factor));
}

/* The point of a skeleton nearest to a place of the image, at most so many of its pixels away: {name, score, x, y} or null. */
export function pointAt(scene, x, y, reach) {
  let nearest = null;
  for (const points of scene.found?.poses[scene.head.name] ?? []) {
    points.forEach(([px, py, score], k) => {
      const distance = Math.hypot(px + 0.5 - x, py + 0.5 - y);
      if (score >= scene.threshold && distance <= (nearest?.distance ?? reach)) {
        nearest = { name: scene.head.points[k].name, score, x: px + 0.5, y: py + 0.5, distance };
      }
    });
  }
  return nearest;
}

function outline(context, [x, y, w, h], factor, text) {
  const place = [x, y, w, h].map((value) => value * factor), sharp = devicePixelRatio || 1;
  context.lineWidth = 3.5 * sharp;
  context.strokeStyle = "#0009";
  context.strokeRect(...place);
  context.lineWidth = 1.5 * sharp;
  context.strokeStyle = "#fff";
  context.strokeRect(...place);
  if (!text) return;
  context.font = `600 ${13 * sharp}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const band = context.measureText(text).width + 12 * sharp;
  context.fillStyle = "#fff";
  context.fillRect(place[0], place[1], band, 20 * sharp);
  context.fillStyle = INK;
  context.fillText(text, place[0] + 6 * sharp, place[1] + 10.5 * sharp);
}

function skeleton(context, { head, threshold }, points, box, factor) {
  const extent = Math.max(box[2], box[3]) * factor;
  const line = Math.max(1.5, extent / 130), radius = Math.max(2.5, extent / 85);
  // The centre of the first pixel is at 0, and half a pixel from the edge.
  const at = points.map(([x, y]) => [(x + 0.5) * factor, (y + 0.5) * factor]);
  const seen = points.map(([, , score]) => score >= threshold);
  const limbs = head.limbs.filter(({ ends: [a, b] }) => seen[a] && seen[b]);
  context.lineCap = "round";
  for (const dark of [true, false]) {
    context.lineWidth = dark ? line + 2 : line;
    for (const { ends: [a, b], colour } of limbs) {
      context.strokeStyle = dark ? INK : colour;
      context.beginPath();
      context.moveTo(...at[a]);
      context.lineTo(...at[b]);
      context.stroke();
    }
  }
  context.lineWidth = 1;
  context.strokeStyle = INK;
  at.forEach(([x, y], k) => {
    if (!seen[k]) return;
    context.fillStyle = head.points[k].colour;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  });
}
