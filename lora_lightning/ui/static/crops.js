// Pictures with their cuts; a click or an arrow key chooses the point around which they are taken.
const STEP = 0.05
const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const tiles = parentElement.querySelector(".tiles")
  while (tiles.children.length > data.tiles.length) tiles.lastChild.remove()
  while (tiles.children.length < data.tiles.length) tiles.append(made())
  data.tiles.forEach((tile, place) => fill(tiles.children[place], tile, setTriggerValue))
}

const element = (name, parent, kind = "") => {
  const child = document.createElement(name)
  child.className = kind
  parent.append(child)
  return child
}

const made = () => {
  const figure = document.createElement("figure")
  figure.className = "tile"
  const button = element("button", figure)
  button.type = "button"
  element("img", button).loading = "lazy"
  element("span", button, "boxes")
  element("span", button, "point")
  element("figcaption", figure, "name")
  return figure
}

const fill = (figure, tile, tell) => {
  const button = figure.querySelector("button")
  const image = button.querySelector("img")
  if (image.getAttribute("src") !== tile.thumb) image.src = tile.thumb
  image.alt = ""
  const percent = (share) => `${Math.round(share * 100)} %`
  button.ariaLabel = `${tile.name}: cuts around the point ${percent(tile.x)} across, ${percent(tile.y)} down`
  figure.querySelector(".name").textContent = `${tile.name}: ${tile.boxes.map((box) => box.label).join(", ")}`
  const boxes = button.querySelector(".boxes")
  boxes.replaceChildren()
  for (const box of tile.boxes) {
    const drawn = element("span", boxes, "box")
    for (const side of ["left", "top", "width", "height"]) drawn.style[side] = `${box[side] * 100}%`
  }
  const point = button.querySelector(".point")
  point.style.left = `${tile.x * 100}%`
  point.style.top = `${tile.y * 100}%`
  const choose = (x, y) => {
    const inside = (share) => Math.round(Math.min(1, Math.max(0, share)) * 1000) / 1000
    tile.x = inside(x)
    tile.y = inside(y)
    tell("moved", { id: tile.id, x: tile.x, y: tile.y })
  }
  button.onclick = (event) => {
    if (!event.detail) return  // Enter or space: the keyboard has no point
    const area = button.getBoundingClientRect()
    choose((event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height)
  }
  button.onkeydown = (event) => {
    if (event.key === "Home") choose(0.5, 0.5)
    else if (KEYS[event.key]) choose(tile.x + KEYS[event.key][0], tile.y + KEYS[event.key][1])
    else return
    event.preventDefault()
    event.stopPropagation()
  }
}
