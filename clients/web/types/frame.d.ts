/**
 * An audio frame as it travels, taken apart; the payload is a view of `data`. Throws DialogueError for what is none.
 * @param {ArrayBuffer} data
 */
export function parseFrame(data: ArrayBuffer): {
    kind: import("./types.js").Format;
    last: boolean;
    handle: number;
    turnIndex: number;
    frame: number;
    payload: Uint8Array<ArrayBuffer>;
};
