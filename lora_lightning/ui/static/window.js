// What the browser does by itself: pictures opened large, two compared by a slider, notifications.
// The listeners stand on the document, so that they serve whatever a page draws, now or later.

const LINKS = ".ll-grid a[href], .ll-picture a[href], .ll-table a[href]"
const GROUP = ".ll-grid, .ll-table, .ll-picture"

let box = null
let shown = []
let place = 0

function make(tag, className, text) {
  const element = document.createElement(tag)
  element.className = className
  if (text) element.textContent = text
  return element
}

function button(label, sign, act) {
  const made = make("button", "ll-box-button", sign)
  made.type = "button"
  made.setAttribute("aria-label", label)
  made.title = label
  made.addEventListener("click", act)
  return made
}

function build() {
  box = make("dialog", "ll-box")
  box.setAttribute("aria-label", "Picture")
  const picture = make("img", "ll-box-picture")
  const words = make("p", "ll-box-words")
  words.setAttribute("aria-live", "polite")
  const count = make("span", "ll-box-count")
  const original = make("a", "ll-box-link", "Open the file")
  original.target = "_blank"
  const send = make("a", "ll-box-link", "Draw it again in Generate")
  const bar = make("div", "ll-box-bar")
  bar.append(
    button("Previous picture (left arrow)", "‹", () => step(-1)),
    count,
    button("Next picture (right arrow)", "›", () => step(1)),
    original, send,
    button("Close (Escape)", "×", () => box.close()),
  )
  box.append(picture, words, bar)
  box.addEventListener("click", (event) => { if (event.target === box) box.close() })
  box.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -place, End: shown.length - 1 - place }
    if (event.key in moves) { event.preventDefault(); step(moves[event.key]) }
  })
  box.addEventListener("close", () => { shown[place]?.focus() })
  document.body.append(box)
}

function step(by) {
  place = (place + by + shown.length) % shown.length
  const link = shown[place]
  const small = link.querySelector("img")
  const [picture, words, bar] = box.children
  picture.src = link.href
  picture.alt = small ? small.alt : ""
  words.textContent = picture.alt
  bar.querySelector(".ll-box-count").textContent = `${place + 1} of ${shown.length}`
  const [original, send] = bar.querySelectorAll(".ll-box-link")
  original.href = link.href
  send.hidden = !link.dataset.send
  send.href = link.dataset.send || ""
}

function clicked(event) {
  const notify = event.target.closest(".ll-notify")
  if (notify) return allowNotices()
  const link = event.target.closest(LINKS)
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return
  event.preventDefault()
  if (!box?.isConnected) build()
  const group = link.closest(GROUP)
  shown = [...group.querySelectorAll("a[href]")]
  place = shown.indexOf(link)
  step(0)
  box.showModal()
}

function slid(event) {
  if (event.target.matches?.(".ll-compare input")) {
    event.target.closest(".ll-compare").style.setProperty("--cut", `${event.target.value}%`)
  }
}

const SAID = { granted: "Notifications are on in this browser", denied: "This browser blocks notifications",
  default: "Allow notifications in this browser" }

async function allowNotices() {
  if ("Notification" in window) await Notification.requestPermission()
  sayNotices()
}

function sayNotices() {
  const word = "Notification" in window ? SAID[Notification.permission] : "This browser has no notifications"
  for (const each of document.querySelectorAll(".ll-notify")) {
    if (each.textContent !== word) each.textContent = word
  }
}

function notice({ id, title, body, href }) {
  const told = JSON.parse(sessionStorage.getItem("ll-told") || "[]")
  if (told.includes(id) || !("Notification" in window) || Notification.permission !== "granted") return
  sessionStorage.setItem("ll-told", JSON.stringify([...told, id].slice(-100)))
  const made = new Notification(title, { body, tag: id })
  made.addEventListener("click", () => { window.focus(); window.location.assign(href) })
}

// One step back for each thing that a person did: Streamlit also pushes a step for every address that a page corrects by
// itself (and for some that were never shown), which makes Back stand still.
function countSteps() {
  if (window.llSteps) return
  window.llSteps = true
  let acted = false
  for (const kind of ["pointerdown", "keydown"]) window.addEventListener(kind, () => { acted = true }, true)
  window.addEventListener("popstate", () => { acted = false }, true)
  const push = history.pushState.bind(history)
  history.pushState = (...entry) => {
    if (acted) push(...entry)
    else history.replaceState(...entry)
    acted = false
  }
}

export default function ({ data }) {
  countSteps()
  document.addEventListener("click", clicked, true)
  document.addEventListener("input", slid, true)
  const watch = setInterval(sayNotices, 1000)
  for (const each of data?.notices || []) notice(each)
  return () => {
    document.removeEventListener("click", clicked, true)
    document.removeEventListener("input", slid, true)
    clearInterval(watch)
  }
}
