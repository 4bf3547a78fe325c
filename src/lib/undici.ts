// What is used of undici: a module of its own, so that it can be loaded on demand, from source and from the bundle alike.

export { Agent, request } from 'undici';
