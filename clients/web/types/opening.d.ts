/**
 * @typedef {object} Opening
 * @property {URL} address  with the token
 * @property {new (url: string, protocols: string[]) => import('./types.js').SocketLike} WebSocket
 * @property {number} timeoutMs
 * @property {AbortSignal} signal
 * @property {(data: string | ArrayBuffer) => void} onMessage
 * @property {(reason: string) => void} onClose  once, if the socket closes after it was opened
 */
/**
 * A WebSocket that speaks the dialogue protocol. Rejects with DialogueError.
 * @param {Opening} opening
 * @returns {Promise<import('./types.js').SocketLike>}
 */
export function openSocket(opening: Opening): Promise<import("./types.js").SocketLike>;
export const SUBPROTOCOL: "dialogue.v1";
/** Any code but 1000 and 1001, which would end the session. */
export const CLOSE_LOST: 4000;
export type Opening = {
    /**
     * with the token
     */
    address: URL;
    WebSocket: new (url: string, protocols: string[]) => import("./types.js").SocketLike;
    timeoutMs: number;
    signal: AbortSignal;
    onMessage: (data: string | ArrayBuffer) => void;
    /**
     * once, if the socket closes after it was opened
     */
    onClose: (reason: string) => void;
};
