/**
 * The full address of the dialogue socket: http(s) becomes ws(s), a path alone is one of the page's own server, a bare
 * host gets ws://, an empty path becomes /v1/dialogue. Throws DialogueError for what is no address.
 * @param {string | URL} url
 * @returns {URL}
 */
export function dialogueUrl(url: string | URL): URL;
/**
 * The same address for fetch, which learns why a WebSocket was refused.
 * @param {URL} address
 */
export function httpUrl(address: URL): string;
/**
 * The address as it may be shown: without the token.
 * @param {URL} address
 */
export function shown(address: URL): string;
