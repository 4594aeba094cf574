import { createDecoder } from './decoding.js';

/** @type {import('./decoding.js').Decoder} */
let live;
/** Decoders that begin anew, for replay and download. @type {Map<number, import('./decoding.js').Decoder>} */
const others = new Map();
/** @type {{format: 'opus' | 'pcm_s16le', sampleRate: number, sink: MessagePort}} */
let setup;

/**
 * @param {{payload: Uint8Array, samples: number}[]} packets
 * @param {import('./decoding.js').Decoder} decoder
 */
function decodeAll(packets, decoder) {
  const pcm = new Float32Array(packets.reduce((sum, { samples }) => sum + samples, 0));
  let at = 0;
  for (const { payload, samples } of packets) {
    pcm.set(decoder.decode(payload, samples), at);
    at += samples;
  }
  return pcm;
}

/** @param {any} order */
async function obey(order) {
  if (order.type === 'setup') {
    setup = order;
    live = await createDecoder(order.format, order.sampleRate);
    postMessage({ type: 'ready' });
  } else if (order.type === 'frame') {
    const { payload, samples, epoch, turnIndex, last, silent } = order;
    const pcm = live.decode(payload, samples);
    if (!silent) setup.sink.postMessage({ pcm, epoch, turnIndex, last }, [pcm.buffer]);
  } else if (order.type === 'end') {
    setup.sink.postMessage({ epoch: order.epoch, turnIndex: order.turnIndex });
  } else if (order.type === 'decode') {
    const { id, packets, done } = order;
    const decoder = others.get(id) ?? (await createDecoder(setup.format, setup.sampleRate));
    others.set(id, decoder);
    const pcm = decodeAll(packets, decoder);
    if (done) {
      decoder.free();
      others.delete(id);
    }
    postMessage({ type: 'decoded', id, pcm }, { transfer: [pcm.buffer] });
  }
}

addEventListener('message', ({ data }) => {
  obey(data).catch((error) => postMessage({ type: 'failed', id: data.id ?? null, message: String(error) }));
});
