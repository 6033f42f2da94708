// Colour maps, and what a value becomes in them. Perceptually even and safe for colour-blind eyes.
// viridis (CC0), cividis (Nunez et al. 2018, CC0); for change, which has a middle: RdBu of ColorBrewer (Apache-2.0),
// reversed, so that less is blue and more is red. 64 colours each, between which is interpolated.

const TABLES = {
  viridis:
    "44015446075a470d6047136548186a481d6f482374482878472d7b46327e453781443b844240864045883e49893d4e8a" +
    "3a538b38588c365c8d34608d32648e31688e2f6c8e2d708e2c738e2a778e297b8e277f8e26828e24868e238a8d218e8d" +
    "20928c1f968b1f9a8a1f9e891fa18721a58523a98326ad812ab07f2fb47c35b7793bbb7542be714ac16d52c5695ac864" +
    "65cb5e6ece5877d15381d34d8bd64695d840a0da39aadc32b5de2bc0df25cae11fd5e21adfe318eae51af4e61efde725",
  cividis:
    "00224e00255400285b002b62002e6a0030700533711235701a386f213b6e273e6e2d416d32436d36466c3b496c3f4c6c" +
    "444f6c48526c4c556c50576c545a6d575d6d5b606e5e636f62656f656870696b716c6e727071737374757777767a7a78" +
    "7e7d788280798683798a86788e8978928c78958f779992779d9576a19975a59c74a99f73ada272b1a570b6a96fbaac6d" +
    "bfb06bc3b369c7b767ccba64d0be62d4c15fd9c55cddc858e1cc55e6d051ead34cefd748f3db42f8df3cfde334fee838",
  change:
    "05306109386d0e41791249841752901b5a9c1f63a8246aae2a71b22f79b53480b93a87bd3f8ec04695c4529dc85fa5cd" +
    "6eaed27bb6d687beda93c6de9dcbe1a7d0e4b1d5e7bbdaeac5dfeccfe4efd5e7f1dbeaf2e1edf3e7f0f4edf2f5f3f5f6" +
    "f8f4f2f9f0ebf9ebe3fae7dcfbe3d4fcdecdfdd9c4fbd0b9fac8aff8bfa4f7b799f6af8ef4a683f09c7beb9172e6866a" +
    "e17860dc6e57d7634fd25849cc4c44c6413ec13639bb2a34b61f2eae172aa21328960f278a0b257f082373042167001f",
};

export const SEQUENTIAL = ["viridis", "cividis"];

/** Return 256 RGBA words (for a Uint32Array over image data, little-endian) of a colour map. */
export function palette(name) {
  const text = TABLES[name] ?? TABLES.viridis;
  const count = text.length / 6;
  const words = new Uint32Array(256);
  for (let i = 0; i < 256; i += 1) {
    const at = (i / 255) * (count - 1);
    const low = Math.min(Math.floor(at), count - 2);
    const part = at - low;
    let word = 0xff;
    for (let channel = 2; channel >= 0; channel -= 1) {
      const a = parseInt(text.substr(low * 6 + channel * 2, 2), 16);
      const b = parseInt(text.substr(low * 6 + 6 + channel * 2, 2), 16);
      word = (word << 8) | Math.round(a + (b - a) * part);
    }
    words[i] = word >>> 0;
  }
  return words;
}

/** Return [low, high] for the colours: the 1st and 99th of a hundred finite values, never an empty range. */
export function robustRange(values, { symmetric = false, fromZero = true } = {}) {
  const finite = [];
  const step = Math.max(1, Math.floor(values.length / 20000));
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) finite.push(values[i]);
  if (!finite.length) return null;
  finite.sort((a, b) => a - b);
  const at = (share) => finite[Math.min(finite.length - 1, Math.round(share * (finite.length - 1)))];
  let [low, high] = [at(0.01), at(0.99)];
  if (symmetric) {
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return [-most, most];
  }
  if (fromZero && low > 0 && low < high * 0.5) low = 0;
  if (!(high > low)) high = low + (Math.abs(low) || 1);
  return [low, high];
}
