"use strict";
// Shows what /v1/jobs, /v1/workers and /v1/dead-letters say. It polls: an EventSource cannot send a token.
// Every text of the API reaches the page as a text node, never as markup.

const POLL_MS = 2000; // as fresh as people look, a few requests a second for a room full of screens
const POLL_FAILED_MS = 5000;
const JOBS_SHOWN = 100;
const LETTERS_SHOWN = 20;
const TOKEN_NAME = "guestkit-token"; // in sessionStorage: gone with the tab

const at = (id) => document.getElementById(id);
let timer = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function ask(path) {
  const token = sessionStorage.getItem(TOKEN_NAME);
  const headers = { accept: "application/json" };
  if (token) headers.authorization = "Bearer " + token;
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) throw new Unauthorized(Boolean(token));
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer.json();
}

class Unauthorized extends Error {
  constructor(wasTried) {
    super("a token is needed");
    this.wasTried = wasTried;
  }
}

function say(text, state) {
  const live = at("live");
  if (live.textContent !== text) live.textContent = text;
  live.className = state;
}

function age(time) {
  if (!time) return "";
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000));
  if (seconds < 60) return seconds + " s ago";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h ago";
  return Math.floor(seconds / 86400) + " d ago";
}

function when(time) {
  const cell = element("time", age(time));
  if (time) {
    cell.dateTime = time;
    cell.title = time;
  }
  return cell;
}

function stateOf(job) {
  const cell = element("td");
  cell.append(element("span", job.status, "chip " + job.status));
  if (job.status === "running") {
    const bar = element("progress");
    bar.max = 100;
    if (typeof job.progress_percent === "number") bar.value = job.progress_percent;
    const words = [job.phase, typeof job.progress_percent === "number" ? Math.round(job.progress_percent) + " %" : null];
    bar.setAttribute("aria-label", "progress of " + job.job_id);
    cell.append(bar, element("small", words.filter(Boolean).join(" ")));
  }
  return cell;
}

function foundOf(job) {
  const cell = element("td");
  const found = job.highlights;
  if (job.error) {
    cell.append(element("code", job.error.code), element("small", job.error.message));
  } else if (job.duplicate_of) {
    cell.append(element("small", "the same work as " + job.duplicate_of));
  } else if (found) {
    cell.append(element("strong", found.os || "no operating system found"));
    if (typeof found.packages === "number") cell.append(element("small", found.packages + " packages"));
  }
  return cell;
}

function jobRow(job) {
  const row = element("tr");
  const id = element("th");
  id.scope = "row";
  const name = element("code", job.job_id);
  name.title = job.job_id;
  id.append(name);
  const what = element("td", job.operation || "");
  if (job.title) what.append(element("small", job.title));
  const time = element("td");
  time.append(when(job.finished_at || job.submitted_at));
  row.append(id, what, stateOf(job), foundOf(job), element("td", job.worker_id || ""), time);
  return row;
}

function workerItem(worker) {
  const item = element("li");
  const head = element("p");
  head.append(element("strong", worker.worker_id), element("span", worker.state, "chip " + worker.state));
  const load = element("meter");
  load.max = Math.max(1, worker.max_concurrent_jobs);
  load.value = worker.current_jobs;
  load.setAttribute("aria-label", "load of " + worker.worker_id);
  const facts = [
    worker.current_jobs + " of " + worker.max_concurrent_jobs + " permits",
    "pool " + worker.pool,
    "version " + worker.version,
    "seen " + age(worker.last_seen),
  ];
  item.append(head, load, element("small", facts.join(" · ")), element("small", worker.operations.join(", ")));
  return item;
}

function letterItem(letter) {
  const item = element("li");
  const head = element("p");
  head.append(element("code", letter.reason || "unknown"), element("small", "dead letter " + letter.id), when(letter.time));
  const source = letter.source_topic
    ? "from " + letter.source_topic + " " + letter.source_partition + "/" + letter.source_offset + ", key " + (letter.key ?? "none")
    : "key " + (letter.key ?? "none");
  item.append(head, element("p", letter.error || ""), element("small", source));
  return item;
}

function fill(list, none, items) {
  at(list).replaceChildren(...items);
  at(none).hidden = items.length > 0;
}

function show(jobs, workers, letters) {
  const alive = workers.filter((worker) => worker.state !== "offline");
  const sum = (name) => alive.reduce((all, worker) => all + worker[name], 0);
  const count = (...states) => jobs.filter((job) => states.includes(job.status)).length;
  at("t-workers").textContent = alive.length === workers.length ? alive.length : alive.length + " of " + workers.length;
  at("t-load").textContent = sum("current_jobs") + " / " + sum("max_concurrent_jobs");
  at("t-pending").textContent = count("pending", "assigned");
  at("t-running").textContent = count("running");
  at("t-completed").textContent = count("completed");
  at("t-failed").textContent = count("failed", "timeout", "cancelled");
  fill("job-rows", "no-jobs", jobs.map(jobRow));
  fill("worker-list", "no-workers", workers.map(workerItem));
  fill("letter-list", "no-letters", letters.map(letterItem));
}

async function refresh() {
  clearTimeout(timer);
  let next = POLL_MS;
  try {
    const [jobs, workers, letters] = await Promise.all([
      ask("/v1/jobs?limit=" + JOBS_SHOWN),
      ask("/v1/workers"),
      ask("/v1/dead-letters?limit=" + LETTERS_SHOWN),
    ]);
    show(jobs.jobs, workers.workers, letters.dead_letters);
    at("login").hidden = true;
    at("board").hidden = false;
    say("live", "good");
  } catch (error) {
    if (error instanceof Unauthorized) {
      if (error.wasTried) at("login-why").textContent = "The token is not known. Try another one.";
      sessionStorage.removeItem(TOKEN_NAME);
      const login = at("login");
      at("board").hidden = true;
      say("a token is needed", "bad");
      if (login.hidden) {
        login.hidden = false;
        at("token").focus();
      }
      return; // until one is given
    }
    say("not reached, trying again", "bad");
    next = POLL_FAILED_MS;
  }
  if (!document.hidden) timer = setTimeout(refresh, next);
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_NAME, at("token").value.trim());
  at("token").value = "";
  refresh();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
refresh();
