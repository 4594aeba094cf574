/**
 * Length of an Opus packet in samples at 48 kHz, from its first bytes (RFC 6716, section 3.1). Throws DialogueError
 * for an empty packet, or one whose frame count is missing, 0 or over 120 ms.
 * @param {Uint8Array} packet
 */
export function packetSamples48k(packet: Uint8Array): number;
/**
 * Length of an audio frame in samples at `sampleRate`.
 * @param {{kind: import('./types.js').Format, payload: Uint8Array}} frame
 * @param {number} sampleRate  Hz
 */
export function frameSamples({ kind, payload }: {
    kind: import("./types.js").Format;
    payload: Uint8Array;
}, sampleRate: number): number;
