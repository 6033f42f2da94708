// How much a map changed since the reference scan, and whether that is more than chance. Pure.

const WANTED_COUNTS = 25; // gross counts that a block should hold for a normal error to mean anything
const BLOCKS = [1, 2, 4, 8, 16, 32];

/** Return the sum of all known values of an array. */
export function total(values) {
  let sum = 0;
  for (const value of values) if (value === value) sum += value;
  return sum;
}

/**
 * Return the change of net counts per beam charge, in standard errors, in square blocks with enough counts.
 *
 * z = (n/q - m/p) / sqrt(s_n^2/q^2 + s_m^2/p^2) with net counts n and m of now and of the reference, their errors, and
 * the beam charges q and p of a block (of the whole scan where they are not known by pixel).
 *
 * @param {object} now {values, sigma, gross, shape}; @param {object} then likewise, of the same shape.
 * @param {number} q beam charge of now, @param {number} p of the reference, in the same unit.
 * @returns {{values: Float32Array, block: number}} as large as the map; NaN where a block has too few pixels.
 */
export function changeInSigma(now, then, q, p) {
  const [ny, nx] = now.shape;
  if (then.shape[0] !== ny || then.shape[1] !== nx) throw new RangeError("maps of two shapes");
  const mean = Math.min(total(now.gross), total(then.gross)) / (nx * ny);
  const block = BLOCKS.find((size) => mean * size * size >= WANTED_COUNTS) ?? BLOCKS.at(-1);
  const values = new Float32Array(nx * ny).fill(NaN);
  for (let top = 0; top < ny; top += block) {
    for (let left = 0; left < nx; left += block) {
      const [bottom, right] = [Math.min(ny, top + block), Math.min(nx, left + block)];
      let [n, vn, m, vm, pixels] = [0, 0, 0, 0, 0];
      for (let j = top; j < bottom; j += 1) {
        for (let i = left; i < right; i += 1) {
          const at = j * nx + i;
          if (now.values[at] !== now.values[at] || then.values[at] !== then.values[at]) continue;
          n += now.values[at];
          m += then.values[at];
          vn += now.sigma[at] ** 2;
          vm += then.sigma[at] ** 2;
          pixels += 1;
        }
      }
      const sigma = Math.sqrt(vn / (q * q) + vm / (p * p));
      if (pixels * 2 < (bottom - top) * (right - left) || !(sigma > 0)) continue;
      const z = (n / q - m / p) / sigma;
      for (let j = top; j < bottom; j += 1) values.fill(z, j * nx + left, j * nx + right);
    }
  }
  return { values, block };
}
